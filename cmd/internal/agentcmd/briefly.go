package agentcmd

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
)

// briefly is the log of an agent that runs for the sake of one verb, as the person needs it
// who has said that: a line for each state, what is wrong, and the end of what a program has
// printed that failed. The rest is in the evidence, and how it ended in the verb's result.
type briefly struct {
	w io.Writer

	mu      sync.Mutex // guards what follows
	printed []string   // by the program that runs, the end of it
	shown   []string   // of what has been printed last, which another attempt may say again
}

// mostPrinted are the lines of a failed program that are shown.
const mostPrinted = 10

// Enabled leaves out what is for debugging.
func (b *briefly) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// WithAttrs changes nothing: what every line has says nothing.
func (b *briefly) WithAttrs([]slog.Attr) slog.Handler { return b }

// WithGroup changes nothing: nobody makes groups.
func (b *briefly) WithGroup(string) slog.Handler { return b }

// Handle writes the lines that the record is worth.
func (b *briefly) Handle(_ context.Context, r slog.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	attrs := map[string]string{}
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.String()
		return true
	})
	var lines []string
	switch {
	case strings.HasPrefix(r.Message, "configuration "): // so the result says
	case r.Level >= slog.LevelWarn:
		lines = []string{"warning: " + r.Message}
		if attrs["error"] != "" {
			lines[0] += ": " + attrs["error"]
		}
	case r.Message == "state entered" && attrs["state"] != string(agent.Idle):
		lines = []string{"state: " + attrs["state"]}
	case r.Message == "hook output":
		b.printed = append(b.printed, attrs["output"])
		b.printed = b.printed[max(0, len(b.printed)-mostPrinted):]
	case r.Message == "hook run":
		if attrs["status"] != "0" && !slices.Equal(b.printed, b.shown) {
			for _, line := range b.printed {
				lines = append(lines, "  "+attrs["command"]+": "+line)
			}
			b.shown = b.printed
		}
		b.printed = nil
	}
	for i, line := range lines {
		lines[i] = cli.Clean(line) + "\n"
	}
	_, err := io.WriteString(b.w, strings.Join(lines, ""))
	return err
}
