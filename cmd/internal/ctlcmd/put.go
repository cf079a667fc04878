package ctlcmd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"deploytools/cmd/internal/cli"
	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/registry/client"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// openArchive opens a regular file, which can be read at several places.
func openArchive(name string) (*archive, error) {
	f, size, err := openRegular(name, "")
	if errors.Is(err, fs.ErrNotExist) {
		err = cli.WithHint(err, "'"+console.Join([]string{"deployctl", "pack", "DIR", "-o", name})+"' makes it of a directory")
	}
	if err != nil {
		return nil, err
	}
	return &archive{File: f, size: size}, nil
}

// openRegular opens a regular file and says how big it is. What else name is
// gets an error with the advice behind it.
func openRegular(name, advice string) (f *os.File, size int64, err error) {
	f, err = os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file%s", name, advice)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// archive is the file to upload.
type archive struct {
	*os.File
	size int64 // when it was opened
}

// reader returns a new reader of the whole file.
func (a *archive) reader() io.ReadSeeker { return io.NewSectionReader(a.File, 0, a.size) }

func (a *archive) digest() (digest.Digest, error) {
	hash := digest.NewWriter()
	_, err := io.CopyBuffer(struct{ io.Writer }{hash}, struct{ io.Reader }{a.reader()}, make([]byte, 256<<10))
	if err != nil {
		err = fmt.Errorf("cannot read %s: %w", a.Name(), err)
	}
	return hash.Digest(), err
}

// put brings one archive to the registry and adds it as a version.
type put struct {
	r     *remote
	c     *client.Client
	o     *cli.IO
	f     *archive
	layer string // for messages

	dryRun, json bool // the flags
}

// run uploads the archive unless the registry has its content. line returns
// the command that adds the content. The archive is checked from the first
// moment on: hashing it, asking and sending do not wait for that.
func (p *put) run(ctx context.Context, line func(digest.Digest) string) error {
	check := p.check(ctx)
	defer check.stop()
	connected := make(chan error, 1)
	go func() { connected <- p.c.Connect(ctx) }()
	d, err := p.f.digest()
	if unconnected := <-connected; unconnected != nil {
		return p.r.explain(unconnected)
	}
	if err != nil {
		return err
	}
	var stdout, stderr reply
	status, err := p.c.Exec(ctx, line(d), nil, &stdout, &stderr)
	if err != nil {
		return p.r.explain(err)
	}
	if status == wire.OK || !lacks(stdout.Bytes(), stderr.Bytes()) {
		_, err := p.o.Stdout.Write(stdout.Bytes())
		p.o.Stderr.Write(stderr.Bytes())
		return cmp.Or(p.r.ended(status, nil), err)
	}
	if p.dryRun {
		return p.plan(check)
	}
	if err := p.upload(ctx, check, d); err != nil {
		return err
	}
	return p.add(ctx, line(d))
}

// plan says that the archive would be uploaded, if it passes the check.
func (p *put) plan(check *checking) error {
	<-check.done
	if check.err != nil {
		return check.err
	}
	what := fmt.Sprintf("upload %s of %d bytes and add it as %s", p.f.Name(), p.f.size, p.layer)
	if p.json {
		return json.NewEncoder(p.o.Stdout).Encode(struct {
			Schema console.Schema `json:"schema"`
			DryRun bool           `json:"dry_run"`
			What   string         `json:"what"`
		}{DryRun: true, What: what})
	}
	_, err := fmt.Fprintln(p.o.Stdout, "dry run, nothing was changed:", cli.Clean(what))
	return err
}

// noUpload is what a registry of any age says about content that it lacks.
const noUpload = "no uploaded file with given hash found"

// lacks reports whether a registry says that it has not the content. One of the
// original kind tells its errors on stdout.
func lacks(stdout, stderr []byte) bool {
	return bytes.Contains(stdout, []byte(noUpload)) || bytes.Contains(stderr, []byte(noUpload))
}

// reply keeps what a command prints, as long as it is sensible.
type reply struct{ bytes.Buffer }

const maxReply = 1 << 20

func (r *reply) Write(p []byte) (int, error) {
	if r.Len()+len(p) > maxReply {
		return 0, fmt.Errorf("registry prints more than %d bytes", maxReply)
	}
	return r.Buffer.Write(p)
}

// small is a size that is sent anew sooner than it is asked for what is there.
const small = 4 << 20

// upload sends the archive, but not to its end before the check has passed: the
// registry keeps nothing of what is no layer. What is not small has a name of
// its own, so that the next call goes on where this one was cut off.
func (p *put) upload(ctx context.Context, check *checking, d digest.Digest) error {
	if check.failed() {
		return p.refused(check, d)
	}
	progress := cli.Progress(p.o, "upload", p.f.size)
	content := &checkedReader{p.f.reader(), check, progress}
	var err error
	if p.f.size < small {
		err = p.c.Upload(ctx, "upload", content, progress)
	} else {
		err = p.c.GoOn(ctx, "upload-"+d.Short(), content, p.f.size, progress)
	}
	progress.Close()
	switch {
	case err == errRefused:
		return p.refused(check, d)
	case err != nil:
		return p.r.explain(fmt.Errorf("%s: %w", p.f.Name(), err)) // the name of the upload says nothing to people
	}
	return nil
}

// add adds what was uploaded. What the registry got has another digest when the
// file was written meanwhile; nobody else has hashed what was sent.
func (p *put) add(ctx context.Context, line string) error {
	var stdout, stderr head
	status, err := ordered(p.o, func(out, errs io.Writer) (wire.Status, error) {
		return p.c.Exec(ctx, line, nil, io.MultiWriter(out, &stdout), io.MultiWriter(errs, &stderr))
	})
	if err == nil && status != wire.OK && lacks(stdout, stderr) {
		return p.changed()
	}
	return p.r.ended(status, err)
}

// refused returns why the check has failed: the archive is no layer, or no longer
// the one with the digest d.
func (p *put) refused(check *checking, d digest.Digest) error {
	if now, err := p.f.digest(); err == nil && now != d {
		return p.changed()
	}
	return check.err
}

func (p *put) changed() error {
	return fmt.Errorf("file %s has changed while it was read; nothing was added", p.f.Name())
}

// head is the beginning of what was written to it.
type head []byte

func (h *head) Write(p []byte) (int, error) {
	*h = append(*h, p[:min(len(p), maxReply-len(*h))]...)
	return len(p), nil
}

// whole are the options to find out whether an archive is whole and sound. How
// big and how privileged a layer may be is the registry's decision.
var whole = layers.Options{Privileged: true, Digests: layers.NoDigests, Limits: layers.Limits{
	Unpacked: 1 << 40, Ratio: 1 << 20, Entries: 1 << 30, Names: 1 << 40, Links: 1 << 30,
}}

// checking is a check that runs.
type checking struct {
	cancel context.CancelFunc
	done   chan struct{} // closed at its end
	err    error         // after done
}

// check begins to check the archive. The caller stops it.
func (p *put) check(ctx context.Context) *checking {
	ctx, cancel := context.WithCancel(ctx)
	c := &checking{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		_, c.err = layers.Check(ctx, p.layer, p.f.reader(), whole)
	}()
	return c
}

// stop returns when nothing of the check runs any more.
func (c *checking) stop() {
	c.cancel()
	<-c.done
}

// failed reports whether the check has ended with an error.
func (c *checking) failed() bool {
	select {
	case <-c.done:
		return c.err != nil
	default:
		return false
	}
}

// errRefused ends an upload whose check has an error.
var errRefused = errors.New("archive is refused")

// checkedReader reads an archive until its check fails. Its end is told only
// when the check has passed.
type checkedReader struct {
	r        io.ReadSeeker
	check    *checking
	progress io.Writer
}

// Seek passes over what the registry has, which is progress.
func (c *checkedReader) Seek(offset int64, whence int) (int64, error) {
	at, err := c.r.Seek(offset, whence)
	for left, skipped := at, make([]byte, 1<<20); left > 0; {
		n, _ := c.progress.Write(skipped[:min(left, int64(len(skipped)))])
		left -= int64(n)
	}
	return at, err
}

func (c *checkedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err == io.EOF {
		<-c.check.done
	}
	if c.check.failed() {
		return 0, errRefused
	}
	return n, err
}
