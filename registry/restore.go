package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"deploytools/layers/digest"
)

// ErrBackup says that a stream is no whole backup.
var ErrBackup = errors.New("not a whole backup")

// Restored is what a backup held.
type Restored struct {
	BackupInfo
	Written  time.Time
	Identity map[string][]byte
	Faults   []Fault // in what the records say of each other and of the blobs
}

// VerifyBackup reads a backup to its end: every byte of it, every digest, and
// every record against the others. An error that wraps ErrBackup says that it
// is not whole; a whole one may have faults that its registry had.
func VerifyBackup(ctx context.Context, in io.Reader) (Restored, error) {
	b := newBackupReading(ctx, in)
	records := map[string][]byte{}
	b.record = func(batch []backupRecord) error {
		for _, rec := range batch {
			records[rec.Key] = rec.Value
		}
		return nil
	}
	b.blob = func(d digest.Digest, r io.Reader) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, digest.NewReader(r, d), make([]byte, 256<<10))
		return err
	}
	if err := b.read(); err != nil {
		return b.out, err
	}
	tx := newRecordsTx(records)
	i := newInspection(tx, b.sizes)
	_, faults := i.run()
	b.out.Faults = slices.DeleteFunc(faults, func(f Fault) bool { return slices.Contains(b.out.Damaged, f.Digest) })
	for _, d := range b.out.Damaged {
		b.out.Faults = append(b.out.Faults, faultOf(tx, d, "it was damaged when the backup was written"))
	}
	return b.out, nil
}

// Restore fills empty engines with a backup. With an error they hold a part of
// it, and no registry may work on them. Blobs that were damaged when it was
// written are left out, and named in the faults.
func Restore(ctx context.Context, meta Meta, blobs Blobs, in io.Reader, progress func(done int64)) (Restored, error) {
	b := newBackupReading(ctx, in)
	b.progress = progress
	b.record = func(batch []backupRecord) error { return putAll(ctx, meta, batch) }
	b.blob = func(d digest.Digest, r io.Reader) error { return blobs.Put(ctx, d, r) }
	if err := b.read(); err != nil {
		return b.out, err
	}
	var marks []backupRecord
	for _, d := range b.out.Damaged {
		text, err := json.Marshal(Damage{Digest: d, Found: b.out.Written, Reason: "it was damaged when the backup was written"})
		if err != nil {
			return b.out, err
		}
		marks = append(marks, backupRecord{keyDamaged(d), text})
	}
	if err := putAll(ctx, meta, marks); err != nil {
		return b.out, err
	}
	err := meta.View(ctx, func(tx Tx) error {
		_, b.out.Faults = newInspection(tx, b.sizes).run()
		return nil
	})
	return b.out, err
}

// putAll stores records, as many in an Update as there may be.
func putAll(ctx context.Context, meta Meta, records []backupRecord) error {
	for batch := range slices.Chunk(records, MaxWrites) {
		err := meta.Update(ctx, func(tx Tx) error {
			for _, rec := range batch {
				if err := tx.Put(rec.Key, rec.Value); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// backupReading reads the entries of a backup in their order.
type backupReading struct {
	in       *counted
	tar      *tar.Reader
	record   func([]backupRecord) error
	blob     func(digest.Digest, io.Reader) error // may fail with digest.ErrMismatch
	progress func(done int64)

	sum   *digest.Writer
	sizes map[digest.Digest]int64 // of the blobs that were whole
	bad   []digest.Digest
	found BackupInfo
	out   Restored
}

func newBackupReading(ctx context.Context, in io.Reader) *backupReading {
	c := &counted{ctx: ctx, r: in}
	return &backupReading{
		in: c, tar: tar.NewReader(c), sum: digest.NewWriter(), sizes: map[digest.Digest]int64{},
		out: Restored{Identity: map[string][]byte{}},
	}
}

// counted knows how far it was read, and ends with its context.
type counted struct {
	ctx context.Context
	r   io.Reader
	n   int64
	err error // of r, but for its end
}

func (c *counted) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		c.err = context.Cause(c.ctx)
		return 0, c.err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBackup}, args...)...)
}

// read reads all of it. Errors of the stream, or of what is done with it, are
// passed on; what the backup itself is to blame for wraps ErrBackup.
func (b *backupReading) read() error {
	for n := 0; ; n++ {
		h, err := b.tar.Next()
		if err != nil {
			return b.cut(err)
		}
		switch {
		case h.Typeflag != tar.TypeReg:
			return bad("entry %q is no file", h.Name)
		case n == 0 && h.Name != entryHead:
			return bad("it begins with %q and not with %q", h.Name, entryHead)
		case n > 0 && h.Name == entryEnd:
			return b.end(h)
		}
		if err := b.entry(h); err != nil {
			return b.cut(err)
		}
		if b.progress != nil {
			b.progress(b.in.n)
		}
	}
}

// cut says what an error of reading means.
func (b *backupReading) cut(err error) error {
	switch {
	case b.in.err != nil:
		return b.in.err
	case errors.Is(err, tar.ErrHeader):
		return bad("no entry begins at byte %d", b.in.n)
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		return bad("it is cut off after %d bytes", b.in.n)
	}
	return err
}

// entry takes one entry before the last.
func (b *backupReading) entry(h *tar.Header) error {
	sum := digest.NewWriter()
	r := io.TeeReader(b.tar, sum)
	name, group := h.Name, ""
	for _, prefix := range []string{entryRecords, entryIdentity, entryFiles} {
		if rest, ok := strings.CutPrefix(h.Name, prefix); ok {
			name, group = rest, prefix
		}
	}
	var err error
	switch {
	case group == entryFiles:
		err = b.file(name, h.Size, r)
	case h.Size > 4*recordsPerEntry+2*MaxValueBytes:
		err = bad("entry %q has %d bytes", h.Name, h.Size)
	case group == entryRecords:
		err = b.records(r)
	case group == entryIdentity:
		b.out.Identity[name], err = io.ReadAll(r)
	case h.Name == entryHead:
		err = b.head(r)
	default:
		err = bad("entry %q has no place in it", h.Name)
	}
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	sumLine(b.sum, h.Name, h.Size, sum.Digest())
	return nil
}

func (b *backupReading) head(r io.Reader) error {
	var head backupHead
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &head); err != nil || head.Format < 1 {
		return bad("its head cannot be read")
	}
	if head.Format > backupFormat {
		return fmt.Errorf("backup has the format %d, and known is %d: a newer deploy-registry wrote it, use that one", head.Format, backupFormat)
	}
	b.out.Written = head.Written
	return nil
}

func (b *backupReading) records(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var batch []backupRecord
	for line := range bytes.Lines(text) {
		var rec backupRecord
		if err := json.Unmarshal(line, &rec); err != nil || rec.Key == "" {
			return bad("a record cannot be read")
		}
		if rec.Value == nil {
			rec.Value = []byte{}
		}
		batch = append(batch, rec)
	}
	b.found.Records += len(batch)
	return b.record(batch)
}

func (b *backupReading) file(name string, size int64, r io.Reader) error {
	d, err := digest.Parse(name)
	if err != nil {
		return bad("entry %q has no place in it", entryFiles+name)
	}
	err = b.blob(d, r)
	if errors.Is(err, digest.ErrMismatch) {
		b.bad = append(b.bad, d)
	} else if err != nil {
		return err
	} else {
		b.sizes[d] = size
	}
	b.found.Blobs++
	b.found.Bytes += size
	return nil
}

// end compares what was read with what was written.
func (b *backupReading) end(h *tar.Header) error {
	var end backupEnd
	began := b.in.n
	text, err := io.ReadAll(io.LimitReader(b.tar, 1<<30))
	if err != nil {
		return b.cut(err)
	}
	if err := json.Unmarshal(text, &end); err != nil {
		return bad("its end cannot be read")
	}
	// Package tar is content where a stream ends early, or goes on.
	want := began + (h.Size+511)/512*512 + 1024
	_, err = b.tar.Next()
	if err == io.EOF {
		_, err = io.Copy(io.Discard, b.in)
	}
	switch {
	case err != nil:
		return b.cut(err)
	case b.in.n < want:
		return b.cut(io.EOF)
	case b.in.n > want:
		return bad("something follows its end")
	}
	for _, d := range b.bad {
		if !slices.Contains(end.Damaged, d) {
			return bad("content %s is damaged in it", d)
		}
	}
	b.found.Damaged = end.Damaged
	if end.Sum != b.sum.Digest() || end.Records != b.found.Records || end.Blobs != b.found.Blobs || end.Bytes != b.found.Bytes {
		return bad("its content is not what was written")
	}
	b.out.BackupInfo = end.BackupInfo
	return nil
}

// recordsTx is a snapshot of records that are in no engine.
type recordsTx struct {
	keys   []string
	values map[string][]byte
}

func newRecordsTx(values map[string][]byte) *recordsTx {
	t := &recordsTx{values: values}
	for key := range values {
		t.keys = append(t.keys, key)
	}
	slices.Sort(t.keys)
	return t
}

func (t *recordsTx) Get(key string) ([]byte, error) { return t.values[key], nil }

func (t *recordsTx) Scan(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		at, _ := slices.BinarySearch(t.keys, prefix)
		for _, key := range t.keys[at:] {
			if !strings.HasPrefix(key, prefix) || !yield(key, t.values[key]) {
				return
			}
		}
	}
}

var errSnapshot = errors.New("a snapshot cannot be written to")

func (t *recordsTx) Put(string, []byte) error { return errSnapshot }
func (t *recordsTx) Delete(string) error      { return errSnapshot }
