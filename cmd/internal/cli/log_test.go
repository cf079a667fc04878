package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"deploytools/registry/client"
	"deploytools/registry/wire"
)

// logLine logs one line to a new file, with JOURNAL_STREAM as stream makes it
// from that file, and returns it.
func logLine(t *testing.T, format string, stream func(*os.File) string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	env := map[string]string{"JOURNAL_STREAM": stream(f)}
	log, err := NewLogger(&IO{Stderr: f, Env: func(name string) string { return env[name] }}, format, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("state entered", "state", "\x1b[31mred", slog.Group("peer", "time", "noon"))
	log.Debug("hidden")
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLinesForTheJournalHaveNoTime(t *testing.T) {
	own := func(f *os.File) string { return streamID(f) }
	for name, test := range map[string]struct {
		format string
		stream func(*os.File) string
		timed  bool
	}{
		"not set":            {LogText, func(*os.File) string { return "" }, true},
		"another stream":     {LogText, func(f *os.File) string { return streamID(f) + "0" }, true},
		"garbage":            {LogText, func(*os.File) string { return "yes" }, true},
		"ours":               {LogText, own, false},
		"ours, JSON":         {LogJSON, own, false},
		"not set, JSON":      {LogJSON, func(*os.File) string { return "" }, true},
		"another's, by JSON": {LogJSON, func(*os.File) string { return "8:1" }, true},
	} {
		line := logLine(t, test.format, test.stream)
		timed := strings.HasPrefix(line, "time=") || strings.HasPrefix(line, `{"time"`)
		if timed != test.timed || strings.Count(line, "\n") != 1 || strings.Contains(line, "\x1b") {
			t.Errorf("%s: time %t, want %t: %s", name, timed, test.timed, line)
		}
		// Only the time of the line goes, not one that is logged.
		if !strings.Contains(line, "noon") {
			t.Errorf("%s: an attribute is missing: %s", name, line)
		}
		if test.format == LogJSON && !json.Valid([]byte(line)) {
			t.Errorf("%s: no JSON: %s", name, line)
		}
	}
}

func TestAnErrorIsLoggedWithItsHint(t *testing.T) {
	for format, want := range map[string]string{
		LogText: ` level=WARN msg="step not done" state=Idle error="cannot poll: not trusted" hint="compare the \x1b fingerprints" wait=1s` + "\n",
		LogJSON: `"level":"WARN","msg":"step not done","state":"Idle","error":"cannot poll: not trusted","hint":"compare the \\x1b fingerprints","wait":1000000000}` + "\n",
	} {
		var out bytes.Buffer
		log, err := NewLogger(&IO{Stderr: &out, Env: func(string) string { return "" }}, format, slog.LevelInfo)
		if err != nil {
			t.Fatal(err)
		}
		cause := &client.Error{Text: "not trusted", Hint: "compare the \x1b fingerprints", Kind: wire.ErrUntrusted}
		log.Warn("step not done", "state", "Idle", "error", fmt.Errorf("cannot poll: %w", cause), "wait", time.Second)
		if !strings.HasSuffix(out.String(), want) {
			t.Errorf("%s: %s, want the end %s", format, out.String(), want)
		}
		out.Reset()
		log.Warn("plain", "error", errors.New("no hint"))
		if strings.Contains(out.String(), "hint=") || strings.Contains(out.String(), `"hint"`) {
			t.Errorf("%s: an error without a hint: %s", format, out.String())
		}
	}
}

// Whoever decodes a line and shows its texts shows no control characters, and
// whoever looks for the ends of lines finds those of events.
func TestLinesHaveNoControlCharacters(t *testing.T) {
	const evil = "a\x1b]0;x\x07\u009b2J\u202e\u2028\xff b"
	for _, format := range []string{LogText, LogJSON} {
		var b bytes.Buffer
		log, err := NewLogger(&IO{Stderr: &b, Env: func(string) string { return "" }}, format, slog.LevelInfo)
		if err != nil {
			t.Fatal(err)
		}
		log.With("user", evil).Error(evil, "error", errors.New(evil), "stack", "one\n\ttwo"+evil, slog.Group("g", "k", evil), "status", 7)
		line := b.String()
		shown := line
		if format == LogJSON {
			var v struct {
				Msg, User, Error, Stack string
				G                       struct{ K string }
				Status                  int
			}
			if err := json.Unmarshal(b.Bytes(), &v); err != nil || v.Status != 7 {
				t.Errorf("%q: %v, status %d", line, err, v.Status)
			}
			if !strings.HasPrefix(v.Stack, "one\n\ttwoa") {
				t.Errorf("the stack is %q", v.Stack)
			}
			shown = v.Msg + v.User + v.Error + strings.NewReplacer("\n", "", "\t", "").Replace(v.Stack) + v.G.K
		}
		for _, text := range []string{strings.TrimSuffix(line, "\n"), strings.TrimSuffix(shown, "\n")} {
			if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
				t.Errorf("%s: %q", format, text)
			}
		}
	}
}

func TestNewLoggerRefusesAnUnknownFormat(t *testing.T) {
	o := &IO{Stderr: new(bytes.Buffer), Env: func(string) string { return "" }}
	if _, err := NewLogger(o, "xml", slog.LevelInfo); StatusOf(err) != 2 {
		t.Errorf("NewLogger = %v, want an error of usage", err)
	}
}
