package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"deploytools/registry/wire"
)

func TestStatusAndHintOfTheOutermostErrorCount(t *testing.T) {
	base := errors.New("base")
	for name, test := range map[string]struct {
		err    error
		status wire.Status
		hint   string
	}{
		"nil":             {nil, wire.OK, ""},
		"plain":           {base, wire.Failed, ""},
		"usage":           {Usage("bad %w", base), wire.Usage, ""},
		"status":          {WithStatus(base, wire.Denied), wire.Denied, ""},
		"hint":            {WithHint(base, "run a"), wire.Failed, "run a"},
		"both":            {WithHint(WithStatus(base, wire.Denied), "run a"), wire.Denied, "run a"},
		"wrapped":         {fmt.Errorf("cannot: %w", WithStatus(WithHint(base, "run a"), wire.Denied)), wire.Denied, "run a"},
		"replaced":        {WithStatus(WithHint(WithStatus(WithHint(base, "run a"), wire.Denied), "run b"), wire.NotNow), wire.NotNow, "run b"},
		"nil with status": {WithStatus(nil, wire.Denied), wire.OK, ""},
		"nil with hint":   {WithHint(nil, "run a"), wire.OK, ""},
	} {
		if got := StatusOf(test.err); got != test.status {
			t.Errorf("%s: StatusOf = %s, want %s", name, got, test.status)
		}
		if got := HintOf(test.err); got != test.hint {
			t.Errorf("%s: HintOf = %q, want %q", name, got, test.hint)
		}
		if test.err != nil && !errors.Is(test.err, base) {
			t.Errorf("%s: the cause is lost", name)
		}
	}
}

func TestReportTellsAnInterruption(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := fmt.Errorf("cannot read: %w", context.Canceled)
	var w strings.Builder
	if Report(ctx, &w, err); w.String() != "error: cannot read: context canceled\n" {
		t.Errorf("somebody else's cancellation: %q", w.String())
	}
	cancel()
	w.Reset()
	if status := Report(ctx, &w, err); status != wire.Failed || w.String() != "error: interrupted\n" {
		t.Errorf("ours: status %s, %q", status, w.String())
	}
	w.Reset()
	if Report(ctx, &w, WithHint(errors.New("a\x1b"), "run b\x1b")); w.String() != "error: a\\x1b\nhint: run b\\x1b\n" {
		t.Errorf("control characters: %q", w.String())
	}
	w.Reset()
	if Report(ctx, &w, errors.New("disk full")); w.String() != "error: disk full\n" {
		t.Errorf("another error after the interruption: %q", w.String())
	}
}

func TestClean(t *testing.T) {
	for s, want := range map[string]string{
		"plain \"quoted\" \\ text": "plain \"quoted\" \\ text",
		"größe 日本 é":               "größe 日本 é",
		"\x1b[2J":                  `\x1b[2J`,
		"a\nerror: b\r\t":          `a\nerror: b\r\t`,
		"\x00\x7f":                 `\x00\x7f`,
		"\u009b31m":                `\u009b31m`, // CSI as one character
		"\u202egnp.exe":            `\u202egnp.exe`,
		"\u2028":                   `\u2028`,
		"bad \xff\xc3":             `bad \xff\xc3`,
		"real \ufffd":              "real \ufffd",
		"\U000e0001":               `\U000e0001`,
	} {
		if got := Clean(s); got != want {
			t.Errorf("Clean(%q) = %s, want %s", s, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if i := strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("Clean(%q) = %q", s, got)
		}
		if Clean(got) != got {
			t.Errorf("Clean(%q) changes what is clean", got)
		}
	})
}
