package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// Script runs the commands on Stdin, a line each, and stops at the first error:
// a shell without a terminal. Lines end in LF or CRLF; the last one need not.
// Empty lines and lines that begin with # are passed over; exit and quit end it,
// as they end the interactive console. It returns the status of the command
// that failed.
func Script(ctx context.Context, s *Session) wire.Status { return s.script(ctx, false) }

// script returns the status of the last command that failed. A line that did
// not arrive whole is not run.
func (s *Session) script(ctx context.Context, keepGoing bool) wire.Status {
	in := bufio.NewReaderSize(s.Stdin, MaxLine+2)
	line := *s
	line.Stdin, line.scripted = strings.NewReader(""), true
	last := wire.OK
	for n := 1; ; n++ {
		b, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			// Where the next line begins is not known.
			return s.report(usage("line %d is longer than %d bytes", n, MaxLine))
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil && err != io.EOF {
			return s.report(fmt.Errorf("cannot read line %d: %w", n, err))
		}
		text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
		if IsExit(text) {
			return last
		}
		if !strings.HasPrefix(strings.TrimLeft(text, " \t"), "#") {
			if status := Exec(ctx, &line, text); status != wire.OK {
				last = status
				s.failed(n, text)
				if !keepGoing {
					return last
				}
			}
		}
		if err == io.EOF {
			return last
		}
	}
}

// IsExit reports whether a line of a console or a script ends it.
func IsExit(line string) bool {
	word := strings.TrimSpace(line)
	return word == "exit" || word == "quit"
}

// exitOp is exit as the only command of a session, which ends anyway. Elsewhere
// IsExit finds the line.
type exitOp struct{}

func (*exitOp) Flags(*pflag.FlagSet) {}

func (*exitOp) Run(context.Context, *Session, []string) (Result, error) { return nil, nil }

// failed tells which line of a script the error above was about.
func (s *Session) failed(n int, text string) {
	text = Clean(strings.TrimSpace(text))
	if s.json {
		encodeJSON(s.Stderr, struct {
			Schema Schema `json:"schema"`
			Line   int    `json:"line"`
			Text   string `json:"text"`
		}{Line: n, Text: text})
		return
	}
	fmt.Fprintf(s.Stderr, "error: line %d failed: %s\n", n, text)
}

type batchOp struct{ keepGoing bool }

func (b *batchOp) Flags(fs *pflag.FlagSet) {
	fs.BoolVar(&b.keepGoing, "keep-going", false, "go on after an error")
}

// scriptError carries the status of a script whose errors were told already.
type scriptError struct{ status wire.Status }

func (e *scriptError) Error() string { return "a command failed" }

func (b *batchOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	if s.scripted {
		return nil, usage("batch cannot run inside a script")
	}
	if status := s.script(ctx, b.keepGoing); status != wire.OK {
		return nil, &scriptError{status}
	}
	return nil, nil
}

type helpOp struct{}

func (*helpOp) Flags(*pflag.FlagSet) {}

type commandList struct {
	Schema   Schema       `json:"schema"`
	Commands []commandRow `json:"commands"`
}

type commandRow struct {
	Name  string `json:"name"`
	Short string `json:"short"`
	Role  string `json:"role"`
}

func (l commandList) Text(w io.Writer) error {
	t := table(w)
	for _, c := range l.Commands {
		fmt.Fprintf(t, "%s\t%s\n", c.Name, c.Short)
	}
	return t.Flush()
}

func (*helpOp) Run(_ context.Context, _ *Session, args []string) (Result, error) {
	if len(args) > 1 {
		return nil, usage("help explains one command at a time")
	}
	if len(args) == 1 {
		c, ok := Lookup(args[0])
		if !ok {
			return nil, unknownCommand(args[0])
		}
		return c.Page(), nil
	}
	var out commandList
	for _, c := range Commands() {
		out.Commands = append(out.Commands, commandRow{c.Name, c.Short, c.Role.String()})
	}
	return out, nil
}

func (*helpOp) suggest(context.Context, *Session, string) ([]string, error) { return names(), nil }

type versionOp struct{}

func (*versionOp) Flags(*pflag.FlagSet) {}

type versionResult struct {
	Schema  Schema `json:"schema"`
	Program string `json:"program"`
	wire.Build
}

func (v versionResult) Text(w io.Writer) error {
	_, err := fmt.Fprintln(w, v.Program, v.Build)
	return err
}

func (*versionOp) Run(_ context.Context, s *Session, _ []string) (Result, error) {
	return versionResult{Program: "deploy-registry", Build: s.Build}, nil
}

type uploadsOp struct{}

func (*uploadsOp) Flags(*pflag.FlagSet) {}

type uploadList struct {
	Schema  Schema      `json:"schema"`
	Uploads []uploadRow `json:"uploads"`
}

type uploadRow struct {
	ID       string        `json:"id"`
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size"`
	Started  time.Time     `json:"started"`
	User     string        `json:"user"`
	Key      string        `json:"key_fingerprint"`
	Path     string        `json:"path"`
	Complete bool          `json:"complete"`
	Verdict  string        `json:"verdict"`
	Reason   string        `json:"reason,omitempty"`
}

func (l uploadList) Text(w io.Writer) error {
	t := ownTable(w)
	for _, u := range l.Uploads {
		name := u.Digest.String()
		if !u.Complete {
			name = "-"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t", name, u.Size, timeText(u.Started), u.User, u.Verdict, u.Path)
		if u.Reason != "" {
			fmt.Fprintf(t, "%s\t", u.Reason)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func (*uploadsOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	uploads, err := s.Registry.Uploads(ctx)
	out := uploadList{Uploads: []uploadRow{}}
	for _, u := range uploads {
		verdict := string(u.Verdict)
		switch {
		case u.Receiving:
			verdict = "receiving"
		case !u.Complete:
			verdict = "partial"
		case u.Waiting:
			verdict = "waiting"
		case verdict == "":
			verdict = "checking"
		}
		out.Uploads = append(out.Uploads, uploadRow{
			ID: u.ID, Digest: u.Digest, Size: u.Size, Started: u.Started, User: Clean(u.User), Key: u.Fingerprint,
			Path: Clean(u.Path), Complete: u.Complete, Verdict: verdict, Reason: Clean(u.Reason),
		})
	}
	return out, err
}
