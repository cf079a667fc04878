package ctlcmd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/layers/digest"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

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
	out  string
}

func (a *addver) Flags(fs *pflag.FlagSet) {
	a.c.Describe(fs)
	fs.StringVar(&a.file, "file", "", "`archive` to upload, tar.gz")
	cli.FileFlag(fs, "file")
	fs.StringVar(&a.out, "o", "", "`file` to write the digest to, as sha256:DIGEST; with -file")
	cli.FileFlag(fs, "o")
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
	var added digest.Digest
	err = p.run(ctx, func(d digest.Digest) string {
		added = d
		return a.line(fs, d)
	})
	if err != nil || a.out == "" || p.dryRun {
		return err
	}
	if err := atomic.WriteFile(a.out, []byte("sha256:"+added.String()+"\n"), 0o644); err != nil {
		return fmt.Errorf("the version was added, but its digest cannot be written: %w", err)
	}
	return nil
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
			if f.Name != "file" && f.Name != "o" {
				words = append(words, "-"+f.Name+"="+value)
			}
		}
	})
	return console.Join(append(words, "-hash="+d.String()))
}
