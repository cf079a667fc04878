package ctlcmd

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
)

func TestStderrNeverBreaksIntoALineOfStdout(t *testing.T) {
	for name, test := range map[string]struct {
		parts []string // of stderr where it begins with !
		want  string
	}{
		"error before the end of a table": {[]string{"a same\nb veri", "!error: 1 of 2\n", "!hint: see\n", "fied\nc same\n"}, "a same\nb verified\nc same\nerror: 1 of 2\nhint: see\n"},
		"hint for the shell":              {[]string{"!note: hint: see 'x'\n", "!error: x\nhint: see 'help y'\n"}, "note: hint: see 'x'\nerror: x\nhint: see 'deployctl help y'\n"},
		"error before everything":         {[]string{"!error: 1 of 2\n", "a\n", "b\n"}, "a\nb\nerror: 1 of 2\n"},
		"error as JSON":                   {[]string{"!{\"error\":1}\n", "{}\n"}, "{}\n{\"error\":1}\n"},
		"progress at once":                {[]string{"!reading: 1 of 2\n", "a\n", "!reading: 2 of 2\n", "b\n"}, "reading: 1 of 2\na\nreading: 2 of 2\nb\n"},
		"progress in pieces":              {[]string{"a", "!no", "!te: x\n!y", "b\nc\n", "!\n"}, "ab\nnote: x\nc\n!y\n"},
		"no end of a line":                {[]string{"a", "!error: x"}, "aerror: x"},
	} {
		var file bytes.Buffer
		_, err := ordered(&cli.IO{Stdout: &file, Stderr: &file}, func(stdout, stderr io.Writer) (wire.Status, error) {
			for _, part := range test.parts {
				w, text := stdout, part
				if part[0] == '!' {
					w, text = stderr, part[1:]
				}
				if n, err := io.WriteString(w, text); n != len(text) || err != nil {
					t.Errorf("%s: wrote %d of %q, %v", name, n, text, err)
				}
			}
			return wire.OK, nil
		})
		if err != nil || file.String() != test.want {
			t.Errorf("%s: %q, %v, want %q", name, file.String(), err, test.want)
		}
	}
}

type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestStreamsSayThatTheyCannotWrite(t *testing.T) {
	_, err := ordered(&cli.IO{Stdout: closedPipe{}, Stderr: closedPipe{}}, func(stdout, stderr io.Writer) (wire.Status, error) {
		if n, err := io.WriteString(stdout, "a\n"); n != 0 || err == nil {
			t.Errorf("stdout: wrote %d, %v", n, err)
		}
		io.WriteString(stderr, "error: x\n")
		return wire.OK, nil
	})
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error of stderr: %v", err)
	}
}
