package console

import (
	"context"
	"fmt"
	"slices"
	"time"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// failedRow is a host on which what a configuration is given has failed before.
type failedRow struct {
	Host     string    `json:"host"`
	Instance string    `json:"instance"`
	Revision uint64    `json:"revision"` // as which it failed there
	At       time.Time `json:"at"`
	Reason   string    `json:"reason"`
}

// maxFailedLines is how many hosts a warning names; JSON has all of them.
const maxFailedLines = 10

// failedOn returns the hosts on which the layers and checks of a new revision have
// failed, for all that agents have told, and those on which the revision failed that it
// replaces, and warns of the first. They try it once more: whoever makes the revision may
// know why it will work now, so nothing is refused.
func (s *Session) failedOn(ctx context.Context, c registry.Change) (news, olds []failedRow) {
	all, err := s.hosts(ctx, c.Name)
	if err != nil { // the change is made all the same
		fmt.Fprintf(s.Stderr, "warning: whether this failed on a host before is not known: %s\n", Clean(err.Error()))
		return nil, nil
	}
	row := func(h registry.Host, f *wire.ReportedFailure) failedRow {
		return failedRow{h.Name, h.Instance, f.Revision, h.Told(f.At), Clean(f.Reason)}
	}
	for _, h := range all {
		if f := h.Failure(c.New.Digest); f != nil {
			news = append(news, row(h, f))
			continue
		}
		if c.Old == nil || h.Runs(c.New.Digest) {
			continue
		}
		if f := h.Failure(c.Old.Digest); f != nil {
			olds = append(olds, row(h, f))
		}
	}
	if !s.json {
		s.warnFailed(news)
		s.noteReplaced(c, olds, len(all))
	}
	return news, olds
}

// noteReplaced says on which hosts the revision failed that is replaced: these come
// from another one, and whatever failed there may be in the new one, too.
func (s *Session) noteReplaced(c registry.Change, failed []failedRow, of int) {
	if len(failed) == 0 {
		return
	}
	var names []string
	for _, r := range failed {
		names = append(names, r.Host)
	}
	fmt.Fprintf(s.Stderr, "note: revision %d, which this replaces, failed on %d of %d hosts: %s\n", c.Old.Revision, len(failed), of, some(slices.Compact(names)))
}

func (s *Session) warnFailed(rows []failedRow) {
	for i, r := range rows {
		if i == maxFailedLines {
			fmt.Fprintf(s.Stderr, "warning: and on %d more hosts\n", len(rows)-i)
			return
		}
		fmt.Fprintf(s.Stderr, "warning: this failed on %s as revision %d, at %s, and is tried there once more: %s\n", r.Host, r.Revision, timeText(r.At), r.Reason)
	}
}
