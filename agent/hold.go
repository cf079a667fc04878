package agent

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// heed notes whether the registry holds the configuration, and logs when that
// changes. Such a hold is the registry's to begin and to end: it is not on our
// record, and no clock of ours is asked.
func (a *Agent) heed(st wire.PollState) {
	held := ""
	if h := st.Hold; h != nil {
		held = cmp.Or(oneLine(h.Reason), "no reason given")
		if !h.Until.IsZero() {
			held += ", until " + h.Until.UTC().Format(time.RFC3339)
		}
	}
	switch {
	case held == a.held:
		return
	case held == "":
		a.log().Info("hold of the registry ended", "revision", st.Revision)
	default:
		a.log().Warn("held by the registry", "revision", st.Revision, "reason", held)
	}
	a.held = held
	a.show(func(p *present) { p.held = held })
}

// rolledBackReason is that of the hold which a person's rollback sets.
const rolledBackReason = "rolled back by hand"

// rolledBack returns the hold after a person's rollback: one that stands goes on
// standing; nil: there was none.
func (h *Hold) rolledBack() *Hold {
	if h == nil || !h.Standing {
		return &Hold{Reason: rolledBackReason, Since: now(), Rolled: true}
	}
	standing := *h
	standing.Link, standing.Rolled, standing.Revision, standing.Digest = "", true, 0, digest.Digest{}
	return &standing
}

// inPlace returns what is left of the hold where `current` names the live root, or where
// a hook has run for it by now: what a person or a rollback holds goes on; nil: nothing.
func (h *Hold) inPlace() *Hold {
	if h == nil || h.Link == "" && !strings.HasSuffix(h.Reason, unhooked) {
		return h
	}
	left := *h
	left.Link = ""
	switch {
	case h.Standing:
		left.Reason, _, _ = strings.Cut(h.Reason, besidesMoved)
	case h.Rolled:
		left.Reason = rolledBackReason
	default:
		return nil
	}
	return &left
}

// overtaken reports whether the registry has a later revision than the one that is held.
func (h *Hold) overtaken(st wire.PollState) bool {
	return !h.Standing && !h.Digest.IsZero() && (st.Revision > h.Revision || st.Revision == 0 && st.Digest != h.Digest)
}

// String returns the hold in words.
func (h *Hold) String() string {
	if h.Until.IsZero() {
		return h.Reason
	}
	return h.Reason + ", until " + h.Until.Format(time.RFC3339)
}

// behind reports whether a rollback's hold goes on behind one that stands.
func (h *Hold) behind() bool { return h != nil && h.Standing && h.Rolled }

// all is String with the hold that is behind it.
func (h *Hold) all() string {
	if h.behind() {
		return h.String() + "; " + rolledBackReason
	}
	return h.String()
}

// over reports whether the time of a hold has come. One that was asked for as a
// duration lasts so long, whatever the clock is set to; after a boot nothing but
// the clock is left to ask. One that was asked for as a time follows the clock.
func (a *Agent) over(h *Hold) bool {
	if h.Until.IsZero() {
		return false
	}
	if boot, err := bootID(); err == nil && h.Uptime > 0 && h.Boot == boot {
		return a.uptime() >= h.Uptime
	}
	return !now().Before(h.Until)
}

// uptime is how long the host has been up, asleep too.
func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// endHold ends the hold whose time has come, also while the registry cannot be
// asked. The end is on record: a clock that is set back does not undo it.
func (a *Agent) endHold() error {
	h := a.rec.Hold
	if h == nil || !a.over(h) {
		return nil
	}
	a.rec.Hold = nil
	if h.Rolled {
		a.rec.Hold = &Hold{Reason: rolledBackReason, Since: h.Since, Rolled: true, Revision: h.Revision, Digest: h.Digest}
	}
	if err := a.save(); err != nil {
		return err
	}
	a.log().Info("hold ended", "reason", h.Reason)
	return nil
}

// watchLink sets a hold when `current` was moved by hand, and ends one whose
// time has come.
func (a *Agent) watchLink(st wire.PollState) error {
	link, err := a.link()
	if err != nil {
		return err
	}
	want := ""
	if a.rec.Live != nil {
		want = a.rec.Live.Dir
	}
	gone := want != "" && link == want && !a.there(want)
	switch h := a.rec.Hold; {
	case link != want && (h == nil || h.Link != cmp.Or(link, noCurrent)):
		return a.moved(link, st)
	case h != nil && h.Link != "" && link == want && !gone:
		a.rec.Hold = h.inPlace()
		a.log().Info("current is back in its place", "root", link)
		return a.save()
	case gone && h == nil && st.Digest == a.rec.Live.Configuration.Digest: // else another comes anyway
		return a.vanished(link, st)
	case h == nil || h.Standing && !h.Rolled || absent(st):
		return nil
	case h.Digest.IsZero(), 0 < st.Revision && st.Revision < h.Revision:
		// Set when the registry could not be asked; or that was restored from a backup,
		// and numbers from there.
		hold := *h
		hold.Revision, hold.Digest = st.Revision, st.Digest
		a.rec.Hold = &hold
		return a.save()
	case h.Standing:
		return nil
	case h.overtaken(st) && h.Link == "": // else what comes ends it, once it is live
		a.rec.Hold = nil
		a.log().Info("hold ended", "revision", st.Revision)
		return a.save()
	}
	return nil
}

// vanished notes that the live root was deleted: a later revision takes its
// place, or a person's repair.
func (a *Agent) vanished(link string, st wire.PollState) error {
	a.rec.Hold = &Hold{Reason: fmt.Sprintf("the live root %s is gone", link), Since: now(), Link: link, Revision: st.Revision, Digest: st.Digest}
	a.log().Error("live root is gone", "root", link)
	return a.save()
}

// How a hold says that `current` was moved, where that of a person stands, and to a root
// that is live by that; and Hold.Link where there is no `current`.
const (
	movedReason  = "`current` was "
	besidesMoved = "; " + movedReason
	unhooked     = ", and no hook was run"
	noCurrent    = "(nothing)"
)

// moved notes that a person moved `current`. If it names a committed root of
// ours, that is the live one now, as after a rollback by hand, but for the hook and the
// checks: it is unverified, on the record and not in the root's document. If not, the record
// keeps the one it knew. A hold that stands keeps its reason, and that of a rollback
// counts again when the link is back.
func (a *Agent) moved(link string, st wire.PollState) error {
	root, err := a.committed(link)
	if err != nil {
		return err
	}
	how := fmt.Sprintf("moved by hand to %q", link)
	switch link {
	case "":
		how = "deleted by hand"
	case noLink:
		how = "replaced by hand, by a directory or a file"
	}
	if root != nil {
		root.Verification, root.Committed = Unverified, now()
		how += unhooked
	}
	h := &Hold{Reason: movedReason + how, Since: now(), Link: cmp.Or(link, noCurrent), Revision: st.Revision, Digest: st.Digest}
	if old := a.rec.Hold; old != nil && old.Standing {
		reason, _, _ := strings.Cut(old.Reason, besidesMoved)
		h.Reason = oneLine(reason + besidesMoved + how)
		h.Standing, h.Until, h.Uptime, h.Boot = true, old.Until, old.Uptime, old.Boot
	}
	if old := a.rec.Hold; old != nil && old.Rolled {
		h.Rolled, h.Revision, h.Digest = true, old.Revision, old.Digest
	}
	if root != nil {
		a.rec.Live, a.rec.Back, h.Link, h.Rolled = root, a.before(root, a.rec.Live, a.rec.Back), "", true
		h.Revision, h.Digest = st.Revision, st.Digest
	}
	a.rec.Hold = h
	a.log().Warn("current moved by hand", "root", link)
	return a.save()
}

// movedTo reports whether the live root has come to be live by a `current` that was
// moved to it: no hook was run for it since.
func (a *Agent) movedTo(live *Root) bool {
	last := a.rec.Last
	return last != nil && live.Committed.After(last.Ended)
}
