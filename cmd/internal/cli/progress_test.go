package cli

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
)

func TestProgressIsALineEveryTenSeconds(t *testing.T) {
	for name, test := range map[string]struct {
		total int64
		want  string
	}{
		"known total":   {400, "co\\x1bde: 110 of 400 bytes, 27 %\nco\\x1bde: 210 of 400 bytes, 52 %\n"},
		"unknown total": {-1, "co\\x1bde: 110 bytes\nco\\x1bde: 210 bytes\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var w bytes.Buffer
			p := Progress(&IO{Stderr: &w, Env: func(string) string { return "" }}, "co\x1bde", test.total)
			for range 25 {
				if n, err := p.Write(make([]byte, 10)); n != 10 || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
				time.Sleep(time.Second)
			}
			if p.Close(); w.String() != test.want {
				t.Errorf("%s: %q, want %q", name, w.String(), test.want)
			}
		})
	}
}

// onTerminal returns what write leaves on a terminal.
func onTerminal(t *testing.T, write func(*os.File)) string {
	t.Helper()
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if err := pty.Setsize(ours, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		t.Fatal(err)
	}
	shown := make(chan string)
	go func() {
		b, _ := io.ReadAll(ours) // ends with EIO when theirs is closed
		shown <- string(b)
	}()
	write(theirs)
	theirs.Close()
	return <-shown
}

func TestProgressIsABarOnATerminal(t *testing.T) {
	env := map[string]string{"NO_COLOR": "1", "TERM": "xterm"}
	transfer := func(f *os.File) {
		p := Progress(&IO{Stderr: f, Env: func(name string) string { return env[name] }}, "code", 1<<20)
		for range 16 {
			p.Write(make([]byte, 1<<16))
		}
		p.Close()
	}
	shown := onTerminal(t, transfer)
	if !strings.Contains(shown, "code 100%") || !strings.Contains(shown, "1.0/1.0 MiB") || !strings.HasSuffix(shown, "\n") {
		t.Errorf("terminal: %q", shown)
	}
	if strings.Contains(shown, "\x1b[3") {
		t.Errorf("there is colour: %q", shown)
	}
	shown = onTerminal(t, func(f *os.File) {
		p := Progress(&IO{Stderr: f, Env: func(name string) string { return env[name] }}, "code", -1)
		p.Write(make([]byte, 1<<20))
		p.Close()
	})
	if !strings.Contains(shown, "code") || !strings.HasSuffix(shown, "\n") {
		t.Errorf("unknown total: %q", shown)
	}
	env["TERM"] = "dumb"
	if shown := onTerminal(t, transfer); shown != "" {
		t.Errorf("dumb terminal: %q", shown)
	}
}
