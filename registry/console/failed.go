package console

import (
	"context"
	"fmt"
	"time"

	"deploytools/registry"
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
// failed, for all that agents have told, and warns of them. They try it once more:
// whoever makes the revision may know why it will work now, so nothing is refused.
func (s *Session) failedOn(ctx context.Context, c registry.Change) []failedRow {
	all, err := s.hosts(ctx, c.Name)
	if err != nil { // the change is made all the same
		fmt.Fprintf(s.Stderr, "warning: whether this failed on a host before is not known: %s\n", Clean(err.Error()))
		return nil
	}
	var rows []failedRow
	for _, h := range all {
		if f := h.Failure(c.New.Digest); f != nil {
			rows = append(rows, failedRow{h.Name, h.Instance, f.Revision, h.Told(f.At), Clean(f.Reason)})
		}
	}
	if !s.json {
		s.warnFailed(rows)
	}
	return rows
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
