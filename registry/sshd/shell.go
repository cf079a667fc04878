package sshd

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// maxRunes is how long a line may be on a terminal: x/term takes no more, and
// drops the rest in silence. It is less than console.MaxLine in any encoding.
const maxRunes = 4096

// shell is the interactive console on a terminal.
type shell struct {
	s       *session
	keys    *keyboard
	term    *term.Terminal
	console *console.Session
	history history
	tooLong bool // the line on the screen is not what was typed
}

// interactive reads commands from the terminal and runs them until the client
// leaves.
func (s *session) interactive(ctx context.Context) wire.Status {
	ctx, end := context.WithCancel(ctx)
	defer end()
	sh := &shell{s: s, keys: newKeyboard(s.terminal.sizes)}
	sh.term = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{sh.keys, s.stdout}, "> ")
	sh.keys.resized = func(z size) { sh.term.SetSize(z.width, z.height) }
	sh.term.History = &sh.history
	sh.term.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		return sh.key(ctx, line, pos, key)
	}
	sh.history.skip = func() bool { return sh.tooLong }
	sh.console = s.console()
	sh.console.Stdin = strings.NewReader("")
	if !s.terminal.dumb {
		sh.term.SetPrompt(string(sh.term.Escape.Red) + "> " + string(sh.term.Escape.Reset))
		sh.term.SetBracketedPasteMode(true)
		defer sh.term.SetBracketedPasteMode(false)
	}
	defer s.c.work.begin("console")()
	s.c.spawn(func() { sh.keys.pump(ctx, s.ch, s.c.active.now) })
	sh.keys.resize() // before there is anything on the screen to draw anew
	// Somebody who thinks what to type is not in the middle of anything.
	s.c.running.Add(-1)
	defer s.c.running.Add(1)
	s.c.streams.Add(-1)
	defer s.c.streams.Add(1)
	for {
		line, err := sh.term.ReadLine()
		if err != nil {
			io.WriteString(s.stdout, "\r\n")
			return wire.OK
		}
		if !sh.tooLong && console.IsExit(line) {
			return wire.OK
		}
		sh.run(ctx, line)
	}
}

// run runs one line; Ctrl-C ends it early.
func (sh *shell) run(ctx context.Context, line string) {
	sh.s.c.running.Add(1)
	defer sh.s.c.running.Add(-1)
	ctx, end := context.WithCancel(ctx)
	defer end()
	// Not through the line editor, which makes two packets of each line.
	out := &screen{w: sh.s.stdout, newline: "\r\n"}
	defer out.end()
	tooLong := sh.tooLong
	sh.tooLong = false
	switch {
	case strings.TrimSpace(line) == "": // Ctrl-C gets here, too
		return
	case tooLong:
		fmt.Fprintf(out, "error: a line has at most %d characters; nothing was run\n", maxRunes)
		return
	}
	sh.keys.interrupts(end)
	defer sh.keys.interrupts(nil)
	defer sh.s.c.work.begin(clean(line, maxDoing))()
	sh.console.Stdout, sh.console.Stderr = out, out
	sh.s.c.s.front.exec(ctx, sh.console, line)
}

// key is called for each key that would change the line, before it does.
func (sh *shell) key(ctx context.Context, line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		if key >= ' ' {
			sh.tooLong = line != "" && (sh.tooLong || utf8.RuneCountInString(line) >= maxRunes)
		}
		return line, pos, false
	}
	newLine, newPos, candidates := sh.s.c.s.front.complete(ctx, sh.console, line, pos)
	if len(candidates) > 1 {
		out := &screen{w: sh.term, newline: "\n"}
		io.WriteString(out, strings.Join(candidates, "  ")+"\n")
	}
	if utf8.RuneCountInString(newLine) > maxRunes {
		return line, pos, true
	}
	return newLine, newPos, true
}

// execOnTerminal runs one command for a client that has a terminal (ssh -t),
// which is in raw mode: there are no lines of input, and Ctrl-C is a byte.
func (s *session) execOnTerminal(ctx context.Context, line string) wire.Status {
	ctx, end := context.WithCancel(ctx)
	defer end()
	keys := newKeyboard(s.terminal.sizes)
	keys.interrupts(end)
	s.c.spawn(func() { keys.pump(ctx, s.ch, s.c.active.now) })
	out := &screen{w: s.stdout, newline: "\r\n"}
	defer out.end()
	c := s.console()
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(""), out, out
	return s.c.s.front.exec(ctx, c, line)
}

// history is the lines of this session, the newest last.
type history struct {
	lines []string
	skip  func() bool // the line that is about to be added was not run
}

const maxHistory = 100

// Add keeps what is worth coming back to.
func (h *history) Add(line string) {
	if strings.TrimSpace(line) == "" || h.skip() || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return
	}
	if len(h.lines) == maxHistory {
		h.lines = slices.Delete(h.lines, 0, 1)
	}
	h.lines = append(h.lines, line)
}

// Len returns how many lines there are.
func (h *history) Len() int { return len(h.lines) }

// At returns a line; 0 is the newest.
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }
