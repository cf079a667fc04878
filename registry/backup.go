package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// A backup is a tar archive, so that tar can list it and take a layer out of it:
//
//	backup.json       backupHead
//	records/NUMBER    records, a JSON object on a line
//	identity/NAME     what else the registry is made of: its host keys
//	files/DIGEST      blobs
//	end.json          backupEnd, which covers every byte of what is before it
//
// It holds all records of one moment but for those of uploads and for what hooks
// printed, and all blobs that versions reference then. A backup that was cut off
// has no end.
const (
	backupFormat  = 1
	entryHead     = "backup.json"
	entryRecords  = "records/"
	entryIdentity = "identity/"
	entryFiles    = "files/"
	entryEnd      = "end.json"
)

type backupHead struct {
	Format  int
	Written time.Time
	Build   wire.Build
}

type backupRecord struct {
	Key   string
	Value []byte
}

type backupEnd struct {
	BackupInfo
	Sum digest.Digest // over a line "NAME SIZE DIGEST\n" for each entry before
}

// BackupInfo says what a backup holds.
type BackupInfo struct {
	Records int
	Blobs   int
	Bytes   int64           // of the blobs
	Damaged []digest.Digest // blobs that were not what they should be when it was written
}

// BackupOptions say what goes into a backup.
type BackupOptions struct {
	Build wire.Build // of the program, for the record
	// WithoutIdentity leaves out what Options.Identity returns.
	WithoutIdentity bool
	// Progress, if not nil, is called now and then with the bytes that were
	// written and about how many there are.
	Progress func(done, total int64)
}

// Backup writes a backup to w, beside anything else that runs. While it does
// no blob is collected. Blobs that are damaged are named in the result, and
// everything else is in the backup; with an error, w holds no backup.
func (r *Registry) Backup(ctx context.Context, w io.Writer, o BackupOptions) (BackupInfo, error) {
	defer r.backingUp()()
	records, blobs, err := r.snapshot(ctx)
	if err != nil {
		return BackupInfo{}, err
	}
	b := &backupWriter{tar: tar.NewWriter(w), now: r.now(), sum: digest.NewWriter(), progress: o.Progress}
	for _, size := range blobs {
		b.total += size
	}
	if err := b.head(o, records); err != nil {
		return b.info, err
	}
	if r.o.Identity != nil && !o.WithoutIdentity {
		if err := b.identity(r.o.Identity); err != nil {
			return b.info, err
		}
	}
	for _, d := range slices.SortedFunc(maps.Keys(blobs), byDigest) {
		if err := r.backUp(ctx, b, d); err != nil {
			return b.info, fmt.Errorf("cannot back up content %s: %w", d, err)
		}
	}
	return b.info, b.end()
}

// snapshot returns the records of a backup, and the blobs that they reference
// with the sizes that they should have. It copies: what is sent may go slowly,
// and a View is to be short.
func (r *Registry) snapshot(ctx context.Context) (records []backupRecord, blobs map[digest.Digest]int64, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) error {
		records, blobs = nil, map[digest.Digest]int64{}
		for key, b := range tx.Scan(prefixVersion) {
			v, err := decode[Version](key, b)
			if err != nil {
				return err
			}
			for i, d := range v.keeps() {
				blobs[d] = max(blobs[d], [2]int64{v.Size, 0}[i])
			}
		}
		for key, b := range tx.Scan("") {
			if backedUp(key, blobs) {
				records = append(records, backupRecord{key, b})
			}
		}
		return nil
	})
	return records, blobs, err
}

// backedUp says which records belong into a backup: not those of uploads, nor of
// blobs that nothing references, nor what is only true of this disk. Without
// prefixTold agents tell anew what they told, with the output of their hooks.
func backedUp(key string, blobs map[digest.Digest]int64) bool {
	for _, prefix := range []string{prefixUpload, prefixReceived, prefixDropDir, prefixDoomed, prefixDamaged, keyScrub, prefixOutput, prefixTold} {
		if strings.HasPrefix(key, prefix) {
			return false
		}
	}
	if strings.HasPrefix(key, prefixBlob) {
		d, err := digest.Parse(nameOf(key))
		_, referenced := blobs[d]
		return err == nil && referenced
	}
	return true
}

// backupWriter writes the entries.
type backupWriter struct {
	tar         *tar.Writer
	now         time.Time
	sum         *digest.Writer
	info        BackupInfo
	done, total int64
	progress    func(done, total int64)
	told        time.Time
}

// recordsPerEntry is about how many bytes of records are in one entry.
const recordsPerEntry = 1 << 20

func (b *backupWriter) head(o BackupOptions, records []backupRecord) error {
	if err := b.json(entryHead, backupHead{backupFormat, b.now, o.Build}); err != nil {
		return err
	}
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	for n := 0; b.info.Records < len(records); n++ {
		text.Reset()
		for text.Len() < recordsPerEntry && b.info.Records < len(records) {
			if err := lines.Encode(records[b.info.Records]); err != nil {
				return err
			}
			b.info.Records++
		}
		if err := b.small(fmt.Sprintf("%s%08d", entryRecords, n), text.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (b *backupWriter) identity(read func() (map[string][]byte, error)) error {
	files, err := read()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err == nil {
			err = b.small(entryIdentity+name, files[name])
		}
	}
	return err
}

func (b *backupWriter) json(name string, v any) error {
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return b.small(name, append(text, '\n'))
}

func (b *backupWriter) small(name string, content []byte) error {
	_, err := b.entry(name, int64(len(content)), bytes.NewReader(content))
	return err
}

// entry writes one entry and returns the digest of its content. r has size
// bytes.
func (b *backupWriter) entry(name string, size int64, r io.Reader) (digest.Digest, error) {
	err := b.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size, ModTime: b.now.Truncate(time.Second)})
	if err != nil {
		return digest.Digest{}, err
	}
	h := digest.NewWriter()
	if _, err := io.CopyBuffer(io.MultiWriter(b.tar, h), struct{ io.Reader }{r}, make([]byte, 256<<10)); err != nil {
		return digest.Digest{}, err
	}
	sumLine(b.sum, name, size, h.Digest())
	return h.Digest(), nil
}

// sumLine adds an entry to the sum over all of them.
func sumLine(sum io.Writer, name string, size int64, d digest.Digest) {
	fmt.Fprintf(sum, "%s %d %s\n", name, size, d)
}

// backUp writes the blob d.
func (r *Registry) backUp(ctx context.Context, b *backupWriter, d digest.Digest) error {
	blob, err := r.o.Blobs.Open(ctx, d)
	if errors.Is(err, ErrNoBlob) {
		return r.backedUpDamaged(ctx, b, d, notThere)
	}
	if err != nil {
		return err
	}
	defer blob.Close()
	got, err := b.entry(entryFiles+d.String(), blob.Size(), &backupReader{ctx: ctx, b: b, blob: blob})
	if err != nil {
		return err
	}
	b.info.Blobs++
	b.info.Bytes += blob.Size()
	if got == d {
		return nil
	}
	return r.backedUpDamaged(ctx, b, d, "its content has the digest "+got.String())
}

// backedUpDamaged names a blob in the backup and in the registry.
func (r *Registry) backedUpDamaged(ctx context.Context, b *backupWriter, d digest.Digest, reason string) error {
	b.info.Damaged = append(b.info.Damaged, d)
	_, err := r.quarantine(ctx, d, reason)
	if errors.Is(err, ErrReadOnly) {
		err = nil
	}
	return err
}

// backupReader reads a blob. What cannot be read comes as zeros, so that a bad
// place on the disk costs one blob and not the backup.
type backupReader struct {
	ctx  context.Context
	b    *backupWriter
	blob Blob
	off  int64
}

func (r *backupReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	left := r.blob.Size() - r.off
	if left <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), left)]
	n, err := r.blob.ReadAt(p, r.off)
	if n < len(p) && err != nil {
		clear(p[n:])
	}
	r.off += int64(len(p))
	r.b.tell(int64(len(p)))
	return len(p), nil
}

func (b *backupWriter) tell(n int64) {
	b.done += n
	if now := time.Now(); b.progress != nil && now.Sub(b.told) >= time.Second {
		b.told = now
		b.progress(b.done, max(b.done, b.total))
	}
}

func (b *backupWriter) end() error {
	if err := b.json(entryEnd, backupEnd{b.info, b.sum.Digest()}); err != nil {
		return err
	}
	return b.tar.Close()
}
