// Package doctor is what the commands doctor of the programs have in common: looks at
// a host, each with a result and, where that is not good, with what to do.
package doctor

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// The levels of what was found.
const (
	levelOK   = "ok"
	levelWarn = "warn"
	levelFail = "FAIL"
)

// Look is the result of one look.
type Look struct {
	Level string `json:"level"`
	About string `json:"about"`
	Text  string `json:"text"`
	Next  string `json:"next,omitempty"` // what to do
}

// Diagnosis is all that was looked at. The zero value is ready.
type Diagnosis struct {
	Schema console.Schema `json:"schema"`
	Looks  []Look         `json:"looks"`
	Failed int            `json:"failed"`
}

// OK says that something is as it should be.
func (d *Diagnosis) OK(about, format string, args ...any) {
	d.Looks = append(d.Looks, Look{levelOK, about, fmt.Sprintf(format, args...), ""})
}

// Warn says that something may go wrong, and what to do; "": nothing.
func (d *Diagnosis) Warn(about, next, format string, args ...any) {
	d.Looks = append(d.Looks, Look{levelWarn, about, fmt.Sprintf(format, args...), next})
}

// Fail says that something does not work, and what to do.
func (d *Diagnosis) Fail(about, next, format string, args ...any) {
	d.Looks = append(d.Looks, Look{levelFail, about, fmt.Sprintf(format, args...), next})
	d.Failed++
}

// Text is a line for each look, and one for what to do.
func (d *Diagnosis) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, l := range d.Looks {
		fmt.Fprintf(t, "%s\t%s\t%s\n", l.Level, cli.Clean(l.About), cli.Clean(l.Text))
		if l.Next != "" {
			fmt.Fprintf(t, "\t\thint: %s\n", cli.Clean(l.Next))
		}
	}
	return t.Flush()
}

// Show prints it. The error has status 1, and nothing more to say, where something
// fails.
func (d *Diagnosis) Show(o *cli.IO, json bool) error {
	if err := console.Show(o.Stdout, d, json); err != nil {
		return err
	}
	if d.Failed > 0 {
		return &cli.Error{Status: wire.Failed}
	}
	return nil
}

// Clock looks whether the host's time can be believed; why says what for.
func (d *Diagnosis) Clock(why string) {
	var t unix.Timex
	_, err := unix.Adjtimex(&t)
	switch {
	case time.Now().Year() < 2025:
		d.Fail("clock", "set it, or run a time service: systemctl enable --now systemd-timesyncd", "it says %s", time.Now().Format(time.RFC3339))
	case err == nil && t.Status&unix.STA_UNSYNC != 0:
		d.Warn("clock", "run a time service, "+why, "nobody keeps it right")
	default:
		d.OK("clock", "%s", time.Now().Format(time.RFC3339))
	}
}
