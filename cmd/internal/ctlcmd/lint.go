package ctlcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/layerflags"
	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

var lintCommand = cli.Command{
	Name: "lint", Args: "FILE...", Files: true, Short: "say whether archives may be layers",
	Long: "Reads each archive to its end and holds it to the rules by which registry and\n" +
		"agents accept layers; - is stdin. The verdicts go to stdout, a line for each\n" +
		"accepted archive. What breaks a rule goes to stderr, and the exit status is 1.",
	Examples: []string{"deployctl lint web.tar.gz", "tar cz -C build . | deployctl lint -", "deployctl lint -json *.tar.gz"},
	New:      func() cli.Op { return &lint{} },
}

// lint is one call of the command.
type lint struct {
	layers.Options
	json bool
}

// verdict is a line of lint -json.
type verdict struct {
	Schema   console.Schema `json:"schema"`
	File     string         `json:"file"`
	OK       bool           `json:"ok"`
	Digest   digest.Digest  `json:"digest"`
	Size     int64          `json:"size_bytes"`
	Unpacked int64          `json:"unpacked_bytes"`
	Entries  int64          `json:"entries"`
	Warnings []string       `json:"warnings,omitempty"`
	Error    string         `json:"error,omitempty"`
}

// Flags defines the flags.
func (l *lint) Flags(fs *pflag.FlagSet) {
	fs.BoolVar(&l.json, "json", false, "print an object for each file, also for those that are refused")
	layerflags.Define(fs, &l.Options)
}

// Run looks at every file, whatever is wrong with those before it.
func (l *lint) Run(ctx context.Context, o *cli.IO, args []string) error {
	if len(args) == 0 {
		return cli.Usage("no file given")
	}
	refused, report := false, cli.Report
	if l.json {
		report = cli.ReportJSON
	}
	for _, file := range args {
		v, err := l.verdict(ctx, o, file)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			refused = true
			report(ctx, o.Stderr, err)
		}
		warn(o, v.Warnings)
		if err := l.print(o, v); err != nil {
			return err
		}
	}
	if refused {
		return &cli.Error{Status: wire.Failed}
	}
	return nil
}

func (l *lint) verdict(ctx context.Context, o *cli.IO, file string) (verdict, error) {
	v := verdict{File: file}
	r, err := openLayer(o, file, "checking")
	if err == nil {
		defer r.Close()
		var info *layers.Info
		info, err = layers.Check(ctx, file, r, l.Options)
		if err == nil || errors.Is(err, layers.ErrRefused) {
			v.Digest, v.Size = info.Digest, info.Size
		}
		v.Unpacked, v.Entries, v.Warnings = info.Unpacked, info.Entries, info.Warnings
	}
	if v.OK = err == nil; !v.OK {
		v.Error = err.Error()
	}
	return v, err
}

func (l *lint) print(o *cli.IO, v verdict) error {
	if l.json {
		return json.NewEncoder(o.Stdout).Encode(v)
	}
	if !v.OK {
		return nil
	}
	_, err := fmt.Fprintf(o.Stdout, "ok %s  %s: %s, %s unpacked, %s\n", v.Digest, cli.Clean(v.File),
		plural(v.Size, "byte"), plural(v.Unpacked, "byte"), entries(v.Entries))
	return err
}

// plural returns n with what is counted.
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func entries(n int64) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}

// warn prints lines beside the result.
func warn(o *cli.IO, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintln(o.Stderr, "warning:", cli.Clean(w))
	}
}

// openLayer opens a file, or stdin for -, and shows how far reading has come.
func openLayer(o *cli.IO, file, doing string) (io.ReadCloser, error) {
	if file == "-" {
		return watch(o, io.NopCloser(o.Stdin), doing+" stdin", -1), nil
	}
	f, size, err := openRegular(file, "; what comes through a pipe is read as -")
	if err != nil {
		return nil, err
	}
	return watch(o, f, doing+" "+file, size), nil
}
