package console

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"deploytools/registry/wire"
)

// script runs text as a shell without a terminal does, or through batch.
func (d *desk) script(text string, batch ...string) (stdout, stderr string, status wire.Status) {
	d.t.Helper()
	d.minutes.Add(1)
	d.stdout.Reset()
	d.stderr.Reset()
	d.session.Stdin = strings.NewReader(text)
	if len(batch) == 0 {
		status = Script(d.t.Context(), &d.session)
	} else {
		status = Run(d.t.Context(), &d.session, batch)
	}
	return d.stdout.String(), d.stderr.String(), status
}

// `ssh host < script` ran nothing and succeeded once: LF was not Enter.
func TestScript(t *testing.T) {
	long := "components " + strings.Repeat(" ", MaxLine-len("components "))
	for _, test := range []struct {
		name, text             string
		wantStdout, wantStderr string
		want                   wire.Status
	}{
		{name: "nothing"},
		{name: "LF", text: "components\nconfigurations\n", wantStdout: "assets\ncode\nconfig\nproject1\n"},
		{name: "CRLF", text: "components\r\nconfigurations\r\n", wantStdout: "assets\ncode\nconfig\nproject1\n"},
		{name: "no line end", text: "configurations", wantStdout: "project1\n"},
		{name: "no line end but CR", text: "configurations\r", wantStdout: "project1\n"},
		{name: "empty lines and comments", text: "\n  \t\n# components\n \t#;\r\nconfigurations\n\n", wantStdout: "project1\n"},
		{name: "stops at the first error", text: "components\nshowconf -name nope\nconfigurations\n", want: wire.NotFound,
			wantStdout: "assets\ncode\nconfig\n", wantStderr: "error: configuration \"nope\" not found\nhint: see 'configurations'\nerror: line 2 failed: showconf -name nope\n"},
		{name: "line that cannot be split", text: "configurations;nonsense\n", want: wire.Usage,
			wantStderr: "error: unquoted ';': there is no shell here, quote it or leave it out\nerror: line 1 failed: configurations;nonsense\n"},
		{name: "control characters", text: " help \x1b[31m\n", want: wire.Usage,
			wantStderr: "error: Unknown command, supported commands are: " + strings.Join(names(), " ") + "\nhint: \"\\x1b[31m\" is no command\n" +
				"error: line 1 failed: help \\x1b[31m\n"},
		{name: "longest line", text: long + "\r\n" + long, wantStdout: "assets\ncode\nconfig\nassets\ncode\nconfig\n"},
		{name: "longer line", text: "configurations\n" + long + "  -json\ncomponents\n", want: wire.Usage, wantStdout: "project1\n",
			wantStderr: "error: line 2 is longer than 16384 bytes\n"},
		{name: "line that never ends", text: strings.Repeat("x", 1<<20), want: wire.Usage,
			wantStderr: "error: line 1 is longer than 16384 bytes\n"},
		{name: "exit", text: "configurations\n \texit \r\ncomponents\n", wantStdout: "project1\n"},
		{name: "quit", text: "configurations\nquit", wantStdout: "project1\n"},
		{name: "exit with words", text: "exit 3\nconfigurations\n", want: wire.Usage,
			wantStderr: "error: unexpected argument \"3\"\nhint: see 'help exit'\nerror: line 1 failed: exit 3\n"},
		{name: "batch in it", text: "batch\nconfigurations\n", want: wire.Usage,
			wantStderr: "error: batch cannot run inside a script\nhint: see 'help batch'\nerror: line 1 failed: batch\n"},
	} {
		d := newDesk(t).walk()
		stdout, stderr, status := d.script(test.text)
		if stdout != test.wantStdout || stderr != test.wantStderr || status != test.want {
			t.Errorf("%s: stdout %q, stderr %q, exit status %s, want %q, %q, %s", test.name, stdout, stderr, status, test.wantStdout, test.wantStderr, test.want)
		}
		if b, e, s := d.script(test.text, "batch"); b != stdout || e != stderr || s != status {
			t.Errorf("%s: batch is different: stdout %q, stderr %q, exit status %s", test.name, b, e, s)
		}
	}
}

func TestBatchKeepsGoing(t *testing.T) {
	d := newDesk(t).walk()
	text := "showconf\nconfigurations\nshowconf -name nope\ncomponents\nexit\nconfigurations\n"
	stdout, stderr, status := d.script(text, "batch", "-keep-going")
	wantStderr := "error: -name should be set\nhint: see 'help showconf'\nerror: line 1 failed: showconf\n" +
		"error: configuration \"nope\" not found\nhint: see 'configurations'\nerror: line 3 failed: showconf -name nope\n"
	if stdout != "project1\nassets\ncode\nconfig\n" || stderr != wantStderr || status != wire.NotFound {
		t.Errorf("batch -keep-going: stdout %q, stderr %q, exit status %s", stdout, stderr, status)
	}
}

func TestBatchJSON(t *testing.T) {
	d := newDesk(t).walk()
	stdout, stderr, status := d.script("configurations\nconfigurations -json=false\nshowconf -name nope\n", "batch", "-json")
	wantStderr := `{"schema":1,"error":"configuration \"nope\" not found","hint":"see 'configurations'","status":3}` + "\n" + `{"schema":1,"line":3,"text":"showconf -name nope"}` + "\n"
	if stdout != "{\"schema\":1,\"names\":[\"project1\"]}\nproject1\n" || stderr != wantStderr || status != wire.NotFound {
		t.Errorf("batch -json: stdout %q, stderr %q, exit status %s", stdout, stderr, status)
	}
}

// Half a line could be another command: v1 of v10.
func TestLineThatDidNotArriveWholeIsNotRun(t *testing.T) {
	d := newDesk(t).walk()
	lost := errors.New("connection lost")
	d.session.Stdin = io.MultiReader(strings.NewReader("configurations\ncomponents"), iotest.ErrReader(lost))
	status := Script(t.Context(), &d.session)
	if got := d.stdout.String(); !strings.HasSuffix(got, "project1\n") || status != wire.Failed {
		t.Errorf("stdout %q, exit status %s", got, status)
	}
	if got, want := d.stderr.String(), "error: cannot read line 2: connection lost\n"; got != want {
		t.Errorf("stderr %q, want %q", got, want)
	}
}

func TestScriptEndsWithItsContext(t *testing.T) {
	d := newDesk(t).walk()
	ctx, cancel := context.WithCancelCause(t.Context())
	d.stdout.Reset()
	r, w := io.Pipe()
	d.session.Stdin = r
	go func() {
		io.WriteString(w, "configurations\n")
		cancel(errors.New("shutting down"))
		io.WriteString(w, "help\n")
		w.Close()
	}()
	status := Script(ctx, &d.session)
	if strings.Contains(d.stdout.String(), "addver") || status != wire.Failed || !strings.Contains(d.stderr.String(), "shutting down") {
		t.Errorf("stdout %q, stderr %q, exit status %s", &d.stdout, &d.stderr, status)
	}
}

func TestRanIsToldOfEveryLine(t *testing.T) {
	d := newDesk(t).walk()
	var got []string
	d.session.Ran = func(line string, took time.Duration, status wire.Status) {
		if took < 0 {
			t.Errorf("%s: took %v", line, took)
		}
		got = append(got, line+" = "+status.String())
	}
	d.run("configurations")
	d.run("nope")
	d.run("configurations;x")
	d.run(" \t")
	d.script("# nothing\n\ncomponents\nshowconf\nhelp\n")
	want := []string{"configurations = 0", "nope = 2", "configurations;x = 2", "components = 0", "showconf = 2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestVersion(t *testing.T) {
	d := newDesk(t)
	if got, want := d.must("version"), "deploy-registry v1.2.3, commit 0123456789ab, go1.26.5, wire format 1\n"; got != want {
		t.Errorf("version: got %q, want %q", got, want)
	}
}

func TestClean(t *testing.T) {
	for s, want := range map[string]string{
		"plain text, häß 日本": "plain text, häß 日本",
		"a\nb\tc\r":          `a\nb\tc\r`,
		"\x1b[2J\x07\x00":    `\x1b[2J\a\x00`,
		"\u009b\u202e\u2066": `\u009b\u202e\u2066`,
		"\xff\xc3":           `\xff\xc3`,
		"\ufffd":             "\ufffd",
		"\u00a0":             `\u00a0`,
		"":                   "",
	} {
		if got := Clean(s); got != want {
			t.Errorf("Clean(%q) = %q, want %q", s, got, want)
		}
	}
}
