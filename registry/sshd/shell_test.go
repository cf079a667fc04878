package sshd

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"

	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// typist is somebody at a terminal, with the real client.
type typist struct {
	t    *testing.T
	tty  *os.File
	end  func() error
	mu   sync.Mutex
	text strings.Builder // what the terminal was sent
	new  chan struct{}   // there is more of it
	done chan struct{}   // there will be no more
	seen int
}

// terminal starts ssh on a terminal and waits for the prompt.
func (d *daemon) typist(t *testing.T, args ...string) *typist {
	t.Helper()
	cmd := d.ssh(t, "ssh", append([]string{"-tt", "-i", "op", "anna@registry"}, args...)...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	p := &typist{t: t, tty: tty, end: cmd.Wait, new: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		b := make([]byte, 4096)
		for {
			n, err := tty.Read(b)
			p.mu.Lock()
			p.text.Write(b[:n])
			p.mu.Unlock()
			select {
			case p.new <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { tty.Close() })
	return p
}

func (p *typist) types(keys string) {
	p.t.Helper()
	if _, err := io.WriteString(p.tty, keys); err != nil {
		p.t.Fatal(err)
	}
}

// sees waits until the terminal was sent text that matches, after what was seen
// before, and returns all up to its end.
func (p *typist) sees(pattern string) string {
	p.t.Helper()
	want := regexp.MustCompile(pattern)
	late := time.After(10 * time.Second)
	for {
		p.mu.Lock()
		rest := p.text.String()[p.seen:]
		p.mu.Unlock()
		if at := want.FindStringIndex(rest); at != nil {
			p.seen += at[1]
			return rest[:at[1]]
		}
		select {
		case <-p.new:
		case <-p.done:
			p.t.Fatalf("the terminal shows %q, and ends, want %s", rest, pattern)
		case <-late:
			p.t.Fatalf("the terminal shows %q, want %s", rest, pattern)
		}
	}
}

// leaves waits for the end and returns the exit status.
func (p *typist) leaves() int {
	p.t.Helper()
	<-p.done
	err := p.end()
	if e, ok := err.(interface{ ExitCode() int }); ok {
		return e.ExitCode()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return 0
}

// lines is a front end that keeps what it was given to run.
type lines struct {
	mu  sync.Mutex
	ran []string
}

func (l *lines) exec(_ context.Context, s *console.Session, line string) wire.Status {
	l.mu.Lock()
	l.ran = append(l.ran, line)
	l.mu.Unlock()
	fmt.Fprintf(s.Stdout, "[ran %.30s]\n", line)
	return wire.OK
}

func (l *lines) want(t *testing.T, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.ran, want) {
		t.Errorf("ran %.200q, want %.200q", l.ran, want)
	}
}

const prompt = `\x1b\[31m> \x1b\[0m`

func typing(t *testing.T) (*daemon, *lines, *typist) {
	t.Helper()
	d, l := newDaemon(t), &lines{}
	d.front.exec = l.exec
	d.listen(t)
	p := d.typist(t)
	p.sees(prompt)
	return d, l, p
}

func TestTerminalRunsLinesAndLeaves(t *testing.T) {
	for _, leave := range []string{"exit\r", "  quit \r", "\x04"} {
		_, l, p := typing(t)
		p.types("one 'a b'\r")
		p.sees(`\r\n\[ran one 'a b'\]\r\n` + prompt)
		p.types("\r")
		p.sees(prompt)
		p.types(leave)
		if status := p.leaves(); status != 0 {
			t.Errorf("status %d after %q, want 0", status, leave)
		}
		l.want(t, "one 'a b'")
	}
}

func TestTerminalHistory(t *testing.T) {
	_, l, p := typing(t)
	for _, line := range []string{"one", "two"} {
		p.types(line + "\r")
		p.sees(`\[ran ` + line + `\]\r\n` + prompt)
	}
	p.types("\x1b[A\x1bOA\r") // the second in application mode
	p.sees(`\[ran one\]`)
	p.types("\x1b[A\x1b[A!\r")
	p.sees(`\[ran two!\]`)
	l.want(t, "one", "two", "one", "two!")
}

// x/term ends the session at Ctrl-C.
func TestCtrlCClearsTheLine(t *testing.T) {
	_, l, p := typing(t)
	p.types("rm everything\x1b[D\x1b[D\x03")
	p.sees(prompt)
	p.types("two\r")
	p.sees(`\[ran two\]\r\n` + prompt)
	p.types("\x03\x03")
	p.sees(prompt)
	p.types("three\r")
	p.sees(`\[ran three\]`)
	l.want(t, "two", "three")
	p.types("\x04")
	if status := p.leaves(); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestCtrlCEndsTheCommand(t *testing.T) {
	d := newDaemon(t)
	d.front.exec = func(ctx context.Context, s *console.Session, line string) wire.Status {
		io.WriteString(s.Stdout, "running\n")
		<-ctx.Done()
		return wire.Failed
	}
	d.listen(t)
	p := d.typist(t)
	p.sees(prompt)
	for range 2 {
		p.types("watch\r")
		p.sees("running\r\n")
		p.types("typed ahead\r\x03")
		p.sees(prompt)
	}
	if n := len(d.log.lines(t, "connection closed")); n > 0 {
		t.Error("Ctrl-C ended the session")
	}
	p.types("exit\r")
	p.leaves()
	once := d.typist(t, "watch")
	once.sees("running\r\n")
	once.types("\x03")
	if status := once.leaves(); status != 1 {
		t.Errorf("ssh -tt host watch, Ctrl-C: status %d, want the command's", status)
	}
}

func TestTabCompletes(t *testing.T) {
	d := start(t)
	p := d.typist(t)
	p.sees(prompt)
	p.types("showcon\t")
	p.sees(`showconf `)
	p.types("-h\r")
	p.sees(`(?s)showconf \[flags\].*` + prompt)
	p.types("sh\t")
	p.sees(`show`)
	p.types("\t")
	p.sees(`showcomp  showconf\r\n` + prompt + "show")
	p.types("\x15exit\r")
	p.leaves()
}

// What is typed ahead goes with the command that is interrupted: it may have
// been meant for the case that the command succeeds.
func TestCtrlCForgetsWhatWasTypedAhead(t *testing.T) {
	k := newKeyboard(nil)
	k.interrupts(func() {})
	for _, keys := range []string{"delconf x\r", "y\r", "z\x03"} {
		k.press(t.Context(), []byte(keys))
	}
	k.press(t.Context(), []byte("after"))
	b := make([]byte, 100)
	if n, _ := k.Read(b); string(b[:n]) != "after" {
		t.Errorf("Read = %q, want what was typed after Ctrl-C", b[:n])
	}
}

// x/term drops what goes beyond 4096 characters, and runs the rest.
func TestTooLongLineIsRefused(t *testing.T) {
	_, l, p := typing(t)
	p.types(strings.Repeat("x", 4096) + "\r")
	p.sees(`\[ran x{30}\]`)
	p.types("delconf -name " + strings.Repeat("y", 4096) + " -n\r")
	p.sees(`error: a line has at most 4096 characters; nothing was run\r\n` + prompt)
	p.types("\x1b[200~" + strings.Repeat("z", 20_000) + "\x1b[201~\r")
	p.sees(`error: a line has at most 4096 characters; nothing was run\r\n` + prompt)
	p.types(strings.Repeat("y", 5000) + "\x03")
	p.sees(prompt)
	p.types(strings.Repeat("y", 5000) + "\x15after\r")
	p.sees(`\[ran after\]`)
	l.want(t, strings.Repeat("x", 4096), "after")
}

func TestPasteIsText(t *testing.T) {
	_, l, p := typing(t)
	p.types("\x1b[200~showconf\t-name \x03a\x1b[A\x1b[201~b\r")
	p.sees(`\[ran showconf -name ab\]`)
	l.want(t, "showconf -name ab")
}

// With a key that never ends x/term reads into a full buffer, for ever.
func TestEndlessKeyHarmsNobody(t *testing.T) {
	_, l, p := typing(t)
	p.types("\x1b[" + strings.Repeat("1;", 2000) + "\x03")
	p.sees(prompt)
	p.types("one\r")
	p.sees(`\[ran one\]`)
	l.want(t, "one")
}

func TestResultsCannotSteerTheTerminal(t *testing.T) {
	d := newDaemon(t)
	d.front.exec = func(_ context.Context, s *console.Session, _ string) wire.Status {
		io.WriteString(s.Stdout, "a\x1b[2Jb\tc")
		io.WriteString(s.Stderr, "\x07d")
		return wire.OK
	}
	d.listen(t)
	p := d.typist(t)
	p.sees(prompt)
	p.types("x\r")
	p.sees(`a\\x1b\[2Jb\tc\\ad\r\n` + prompt)
	once := d.typist(t, "x")
	once.sees(`a\\x1b\[2Jb\tc\\ad\r\n`)
	once.leaves()
}

func TestDumbTerminalHasNoColour(t *testing.T) {
	d := start(t)
	c := d.mustDial(t, "anna", d.operator)
	for _, name := range []string{"dumb", ""} {
		s := session1(t, c)
		if err := s.RequestPty(name, 24, 80, ssh.TerminalModes{}); err != nil {
			t.Fatal(err)
		}
		s.Stdin = strings.NewReader("exit\r")
		var out strings.Builder
		s.Stdout = &out
		if err := s.Shell(); err != nil {
			t.Fatal(err)
		}
		if err := s.Wait(); err != nil || out.String() != "> exit\r\n" {
			t.Errorf("TERM=%q: %q, %v", name, out.String(), err)
		}
	}
}

// The size is known before the first prompt, or it would be drawn twice.
func TestFirstPromptIsDrawnOnce(t *testing.T) {
	d := start(t)
	s := session1(t, d.mustDial(t, "anna", d.operator))
	if err := s.RequestPty("dumb", 24, 132, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader("exit\r")
	var out strings.Builder
	s.Stdout = &out
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil || out.String() != "> exit\r\n" {
		t.Errorf("the terminal shows %q, %v", out.String(), err)
	}
}

func TestWindowChangeReachesTheLineEditor(t *testing.T) { // B-19
	_, l, p := typing(t)
	if err := pty.Setsize(p.tty, &pty.Winsize{Rows: 24, Cols: 20}); err != nil {
		t.Fatal(err)
	}
	// Drawn anew for the new width: the cursor goes to the start of the line.
	p.sees(`\x1b\[K[^>]*` + prompt)
	p.types(strings.Repeat("w", 30))
	p.sees(`w{18}\r\nw{12}`) // it breaks where the terminal does
	p.types("\r")
	p.sees(`\[ran w{30}\]`)
	l.want(t, strings.Repeat("w", 30))
}

// The reader of requests must not wait for the line editor, which may wait for
// the client to take output, which the client tells over the same connection.
func TestWindowChangesDuringOutputBlockNothing(t *testing.T) {
	d := newDaemon(t)
	d.front.exec = func(_ context.Context, s *console.Session, _ string) wire.Status {
		io.WriteString(s.Stdout, strings.Repeat("0123456789abcde\n", 1<<18)) // two windows
		return wire.OK
	}
	d.listen(t)
	s := session1(t, d.mustDial(t, "anna", d.operator))
	if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader("x\rexit\r")
	out, _ := s.StdoutPipe()
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	io.ReadFull(out, make([]byte, 1000)) // it runs
	for i := range 1000 {
		if err := s.WindowChange(24, 80+i); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := io.Copy(io.Discard, out); n < 4<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}
