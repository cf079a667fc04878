package agent

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"deploytools/registry/wire"
)

// ErrOutside says that nothing new begins now. It is the end of a Run in
// Mode.Once that found something new.
var ErrOutside = errors.New("outside of the window")

// A Window is a time of the week in which deployments may start, by the clock on
// the wall of its place. Where the clock is put on or back, that clock counts: an
// hour that comes twice is in the window twice, one that is skipped is not there.
type Window struct {
	text     string
	days     [7]bool // on which it begins, from Sunday
	from, to int     // minutes of the day; to <= from: it ends on the next day
	place    *time.Location
}

var dayNames = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// ParseWindow reads [DAYS] HH:MM-HH:MM [ZONE], such as "Mon-Fri 22:00-04:00" or
// "Sat,Sun 00:00-24:00 Europe/Berlin". No days are all days, no zone is the
// host's.
func ParseWindow(text string) (Window, error) {
	w := Window{text: text, place: time.Local}
	words := strings.Fields(text)
	if len(words) > 0 && !strings.Contains(words[0], ":") {
		if err := w.parseDays(words[0]); err != nil {
			return w, err
		}
		words = words[1:]
	} else {
		w.days = [7]bool{true, true, true, true, true, true, true}
	}
	if len(words) == 0 || len(words) > 2 {
		return w, fmt.Errorf("should be [DAYS] HH:MM-HH:MM [ZONE], such as Mon-Fri 22:00-04:00")
	}
	from, to, ranged := strings.Cut(words[0], "-")
	if !ranged {
		return w, fmt.Errorf("%s has no end: should be such as %s-04:00", from, from)
	}
	var ok, ok2 bool
	if w.from, ok = minutes(from); !ok || w.from == 24*60 {
		return w, fmt.Errorf("%q should be a time from 00:00 to 23:59", from)
	}
	if w.to, ok2 = minutes(to); !ok2 {
		return w, fmt.Errorf("%q should be a time from 00:00 to 24:00", to)
	}
	if w.from == w.to {
		return w, fmt.Errorf("%s should end at another time than it begins; a whole day is 00:00-24:00", words[0])
	}
	if len(words) == 2 {
		place, err := time.LoadLocation(words[1])
		if err != nil {
			return w, fmt.Errorf("time zone %q is not known on this host", words[1])
		}
		w.place = place
	}
	return w, nil
}

// parseDays reads such as Mon-Fri,Sun.
func (w *Window) parseDays(text string) error {
	day := func(name string) (int, error) {
		for i, d := range dayNames {
			if strings.EqualFold(d, name) {
				return i, nil
			}
		}
		return 0, fmt.Errorf("%q should be a day: Mon, Tue, Wed, Thu, Fri, Sat or Sun", name)
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		from, err := day(first)
		if err != nil {
			return err
		}
		to, err := day(last)
		if err != nil {
			return err
		}
		for d := from; ; d = (d + 1) % 7 {
			w.days[d] = true
			if d == to {
				break
			}
		}
	}
	return nil
}

func minutes(text string) (int, bool) {
	hh, mm, ok := strings.Cut(text, ":")
	h, errH := strconv.ParseUint(hh, 10, 8)
	m, errM := strconv.ParseUint(mm, 10, 8)
	n := int(h)*60 + int(m)
	return n, ok && errH == nil && errM == nil && len(hh) == 2 && len(mm) == 2 && m < 60 && n <= 24*60
}

// String returns the window as it was written.
func (w Window) String() string { return w.text }

// open reports whether t is in the window.
func (w Window) open(t time.Time) bool {
	t = t.In(w.place)
	minute, day := t.Hour()*60+t.Minute(), int(t.Weekday())
	if w.to > w.from {
		return w.days[day] && minute >= w.from && minute < w.to
	}
	return w.days[day] && minute >= w.from || w.days[(day+6)%7] && minute < w.to
}

// windows are those of one configuration; none is always open.
type windows []Window

func (all windows) open(t time.Time) bool {
	for _, w := range all {
		if w.open(t) {
			return true
		}
	}
	return len(all) == 0
}

// lookAhead is how far next looks: a window of one day, whose hour the clock skips
// that day, comes again after two weeks.
const lookAhead = 15 * 24 * time.Hour

// next returns the minute after t at which a window opens; zero: none does.
func (all windows) next(t time.Time) time.Time {
	t = t.Truncate(time.Minute)
	for end := t.Add(lookAhead); t.Before(end); {
		t = t.Add(time.Minute)
		if all.open(t) {
			return t
		}
	}
	return time.Time{}
}

// outside returns why nothing new may begin now, or nil, and until when. The
// clock is asked each time anew: one that jumps changes nothing but the answer.
func (a *Agent) outside() (until time.Time, err error) {
	all := windows(a.o.Window)
	t := time.Now()
	if all.open(t) {
		return until, nil
	}
	if until = all.next(t); until.IsZero() {
		return until, ErrOutside
	}
	return until, fmt.Errorf("%w until %s", ErrOutside, until.In(all[0].place).Format("Mon 2006-01-02 15:04 MST"))
}

// shut reports whether c has to wait for the window, and says so. A person who
// asks does not wait, and neither does the way back to what this host has run.
func (a *Agent) shut(c *wire.Configuration) (bool, error) {
	until, err := a.outside()
	if err == nil || a.asked || a.dry || a.o.Mode.DryRun {
		return false, nil
	}
	roots, rootsErr := a.roots()
	if rootsErr != nil {
		return false, rootsErr
	}
	if slices.ContainsFunc(roots, func(r *Root) bool { return !r.Committed.IsZero() && r.Configuration.Hash == c.Hash }) {
		a.asked = true
		return false, nil
	}
	a.waitForWindow(fmt.Sprintf("revision %d waits: %v", c.Revision, err), fmt.Sprintf("revision %d waits: %v", c.Revision, ErrOutside), until)
	a.say("want", "waits for its window", err.Error(), "revision", c.Revision, "reason", err.Error())
	if a.result == nil {
		a.result = fmt.Errorf("configuration %q, revision %d: %w", a.o.Name, c.Revision, err)
	}
	return true, nil
}

// waitForWindow notes what waits, for those who look; "": nothing. short is the
// same for where the time is told besides.
func (a *Agent) waitForWindow(text, short string, until time.Time) {
	a.shutTo = text
	a.show(func(p *present) { p.shut, p.opens = short, until.UTC() })
}
