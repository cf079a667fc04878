package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
)

// Log formats, for a flag of that name.
const (
	LogText = "text" // key=value
	LogJSON = "json" // one object a line
)

// NewLogger returns a logger to o.Stderr; another format than LogText and
// LogJSON is an error of usage. Where the journal reads stderr the lines carry
// no time, since the journal has its own. An error with a hint is followed by
// it. An event is one line, and no text in it has control characters, neither in
// the line nor for who decodes it.
func NewLogger(o *IO, format string, level slog.Leveler) (*slog.Logger, error) {
	journal := toJournal(o)
	opts := slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if journal && len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		if err, ok := a.Value.Any().(error); ok {
			if hint := HintOf(err); hint != "" { // a group without a name is no group; its parts come here again
				return slog.Attr{Value: slog.GroupValue(slog.String(a.Key, err.Error()), slog.String("hint", hint))}
			}
		}
		if format == LogJSON { // the text format quotes them itself
			a.Value = cleanValue(a.Value)
		}
		return a
	}}
	switch format {
	case LogText:
		return slog.New(slog.NewTextHandler(o.Stderr, &opts)), nil
	case LogJSON:
		return slog.New(slog.NewJSONHandler(o.Stderr, &opts)), nil
	}
	return nil, Usage("log format %q: should be %s or %s", format, LogText, LogJSON)
}

// cleanValue cleans texts, line by line: a stack has several.
func cleanValue(v slog.Value) slog.Value {
	text := ""
	switch any := v.Any().(type) {
	case string:
		text = any
	case error:
		text = any.Error()
	default:
		return v
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		cells := strings.Split(line, "\t")
		for i := range cells {
			cells[i] = Clean(cells[i])
		}
		lines[i] = strings.Join(cells, "\t")
	}
	return slog.StringValue(strings.Join(lines, "\n"))
}

// toJournal reports whether stderr is the stream that JOURNAL_STREAM names by
// device and inode (systemd.exec(5)). The variable alone proves nothing: it is
// inherited by programs whose stderr goes elsewhere.
func toJournal(o *IO) bool {
	stream := o.Env("JOURNAL_STREAM")
	return stream != "" && stream == streamID(o.Stderr)
}

// streamID returns the device and inode of w as JOURNAL_STREAM writes them, or
// nothing when w is no file.
func streamID(w io.Writer) string {
	f, ok := w.(*os.File)
	if !ok {
		return ""
	}
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
