package ctlcmd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/registry/client"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// noUpload is what a registry of any age says about content that it lacks.
const noUpload = "no uploaded file with given hash found"

func addverCommand(r *remote, c console.Command) cli.Command {
	command := fromConsole(c)
	command.Short = "make a file or an upload a version of a component"
	command.Long = `With -file, the archive is checked to its last byte and uploaded, unless the
registry has it already. With -hash, the content is at the registry: an upload,
or the content of some other version.

Adding the same content under the same name again changes nothing and succeeds;
other content is refused, because versions never change.`
	command.Examples = append([]string{"deployctl addver -name code -version v02 -file code.tar.gz"}, command.Examples...)
	command.New = func() cli.Op { return &addver{r: r, c: c} }
	return command
}

// addver is the command addver: the console's, and -file.
type addver struct {
	r    *remote
	c    console.Command
	file string
}

func (a *addver) Flags(fs *pflag.FlagSet) {
	a.c.Describe(fs)
	fs.StringVar(&a.file, "file", "", "`archive` to upload, tar.gz")
	cli.FileFlag(fs, "file")
}

func (a *addver) Run(ctx context.Context, o *cli.IO, words []string) error {
	fs := pflag.NewFlagSet(a.c.Name, pflag.ContinueOnError)
	a.Flags(fs)
	err := console.ParseFlags(fs, words, true)
	local := fs.Changed("file") || err != nil && hasFile(words)
	switch {
	case err == nil && fs.NArg() == 0 && !local && !fs.Changed("hash"):
		return cli.Usage("give -file FILE, or -hash DIGEST of what is uploaded already")
	case errors.Is(err, pflag.ErrHelp), !local:
		// The registry may know more flags than we do.
		return a.r.run(ctx, o, append([]string{a.c.Name}, words...), nil)
	case err != nil:
		return &cli.Error{Status: wire.Usage, Err: err}
	case fs.NArg() > 0:
		return cli.Usage("unexpected argument %q", fs.Arg(0))
	case fs.Changed("hash"):
		return cli.Usage("-file and -hash exclude each other")
	}
	name, version := fs.Lookup("name").Value.String(), fs.Lookup("version").Value.String()
	if name == "" || version == "" {
		return cli.Usage("name, version and file should all be set")
	}
	if err := errors.Join(wire.CheckName(name), wire.CheckVersion(version)); err != nil {
		return &cli.Error{Status: wire.Usage, Err: err}
	}
	f, err := openArchive(a.file)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := a.r.dial(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	p := put{r: a.r, c: c, o: o, f: f, layer: name + ":" + version, dryRun: isSet(fs, "dry-run"), json: isSet(fs, "json")}
	return p.run(ctx, func(d digest.Digest) string { return a.line(fs, d) })
}

func isSet(fs *pflag.FlagSet, name string) bool { return fs.Lookup(name).Value.String() == "true" }

// hasFile reports whether a command line that cannot be parsed means -file.
func hasFile(words []string) bool {
	for _, w := range words {
		name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
		if strings.HasPrefix(w, "-") && name == "file" {
			return true
		}
	}
	return false
}

// line returns the command that adds the content d, with all other flags.
func (a *addver) line(fs *pflag.FlagSet, d digest.Digest) string {
	words := []string{a.c.Name}
	fs.Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if several, ok := f.Value.(pflag.SliceValue); ok {
			values = several.GetSlice()
		}
		for _, value := range values {
			if f.Name != "file" {
				words = append(words, "-"+f.Name+"="+value)
			}
		}
	})
	return console.Join(append(words, "-hash="+d.String()))
}

// openArchive opens a regular file, which can be read at several places.
func openArchive(name string) (*archive, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &archive{File: f, size: info.Size()}, nil
}

// archive is the file to upload.
type archive struct {
	*os.File
	size int64 // when it was opened
}

// reader returns a new reader of the whole file.
func (a *archive) reader() io.Reader { return io.NewSectionReader(a.File, 0, a.size) }

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
// the command that adds the content.
func (p *put) run(ctx context.Context, line func(digest.Digest) string) error {
	hash := digest.NewWriter()
	if _, err := io.CopyBuffer(struct{ io.Writer }{hash}, struct{ io.Reader }{p.f.reader()}, make([]byte, 1<<20)); err != nil {
		return fmt.Errorf("cannot read %s: %w", p.f.Name(), err)
	}
	d := hash.Digest()
	var stdout, stderr reply
	status, err := p.c.Exec(ctx, line(d), nil, &stdout, &stderr)
	if err != nil {
		return p.r.explain(err)
	}
	// A registry of the original kind tells its errors on stdout.
	if status == wire.OK || !strings.Contains(stdout.String()+stderr.String(), noUpload) {
		_, err := p.o.Stdout.Write(stdout.Bytes())
		p.o.Stderr.Write(stderr.Bytes())
		return cmp.Or(p.r.ended(status, nil), err)
	}
	if p.dryRun {
		return p.plan(ctx)
	}
	if err := p.upload(ctx, d); err != nil {
		return err
	}
	return p.r.ended(p.c.Exec(ctx, line(d), nil, p.o.Stdout, p.o.Stderr))
}

// plan checks the archive, and says that it would be uploaded.
func (p *put) plan(ctx context.Context) error {
	if _, err := layers.Check(ctx, p.layer, p.f.reader(), whole); err != nil {
		return err
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

// reply keeps what a command prints, as long as it is sensible.
type reply struct{ bytes.Buffer }

const maxReply = 1 << 20

func (r *reply) Write(p []byte) (int, error) {
	if r.Len()+len(p) > maxReply {
		return 0, fmt.Errorf("registry prints more than %d bytes", maxReply)
	}
	return r.Buffer.Write(p)
}

// whole are the options to find out whether an archive is whole and sound. How
// big and how privileged a layer may be is the registry's decision.
var whole = layers.Options{Privileged: true, Digests: layers.NoDigests, Limits: layers.Limits{
	Unpacked: 1 << 40, Ratio: 1 << 20, Entries: 1 << 30, Names: 1 << 40, Links: 1 << 30,
}}

// upload sends the archive and checks it meanwhile. What is no layer is not
// sent to its end, so that the registry has nothing of it.
func (p *put) upload(ctx context.Context, want digest.Digest) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	check := &checking{done: make(chan struct{})}
	go func() {
		defer close(check.done)
		_, check.err = layers.Check(ctx, p.layer, p.f.reader(), whole)
	}()
	progress := cli.Progress(p.o, "upload", p.f.size)
	got, err := p.c.Upload(ctx, "upload", &checkedReader{p.f.reader(), check}, progress)
	progress.Close()
	cancel(err) // nil: the check has ended
	<-check.done
	switch {
	case err == errRefused:
		return check.err
	case err != nil:
		return p.r.explain(err)
	case got != want:
		return p.changed()
	}
	return nil
}

func (p *put) changed() error {
	return fmt.Errorf("file %s has changed while it was read; nothing was added", p.f.Name())
}

// checking is a check that runs.
type checking struct {
	done chan struct{} // closed at its end
	err  error         // after done
}

// errRefused ends an upload whose check has an error.
var errRefused = errors.New("archive is refused")

// checkedReader reads an archive until its check fails. Its end is told only
// when the check has passed.
type checkedReader struct {
	r     io.Reader
	check *checking
}

func (c *checkedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err == io.EOF {
		<-c.check.done
	}
	select {
	case <-c.check.done:
		if c.check.err != nil {
			return 0, errRefused
		}
	default:
	}
	return n, err
}
