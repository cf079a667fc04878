package console

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/wire"
)

type historyOp struct{ configArg }

type history struct {
	Schema    Schema        `json:"schema"`
	Name      string        `json:"name"`
	Revisions []revisionRow `json:"revisions"`
}

type revisionRow struct {
	Revision uint64        `json:"revision"`
	Changed  time.Time     `json:"changed"`
	By       string        `json:"by"`
	What     string        `json:"what"`
	Deleted  bool          `json:"deleted"`
	Digest   digest.Digest `json:"digest"`
	Layers   []layerRow    `json:"layers"`
	Note     string        `json:"note,omitempty"`
	Verify   *verifyRow    `json:"verify,omitempty"`
}

func (h history) Text(w io.Writer) error {
	t := ownTable(w)
	for _, r := range h.Revisions {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t", r.Revision, timeText(r.Changed), r.By, r.What)
		if r.Note != "" {
			fmt.Fprintf(t, "%s\t", r.Note)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func (h *historyOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := h.alone(args); err != nil {
		return nil, err
	}
	revs, err := s.Registry.History(ctx, h.name)
	out := history{Name: h.name}
	for _, rev := range revs {
		c := configurationOf(&rev)
		out.Revisions = append(out.Revisions, revisionRow{rev.Revision, rev.Mtime, c.By, rev.What, rev.Deleted, rev.Digest, c.Layers, rev.Note, c.Verify})
	}
	return out, err
}

type diffconfOp struct {
	configArg
	from, to uint64
}

func (d *diffconfOp) Flags(fs *pflag.FlagSet) {
	d.configArg.Flags(fs)
	fs.Uint64Var(&d.from, "from", 0, "`revision` to compare with; 0 is the one before -to")
	fs.Uint64Var(&d.to, "to", 0, "`revision` to look at; 0 is the newest")
}

// difference is what differs between two revisions.
type difference struct {
	Schema    Schema       `json:"schema"`
	Name      string       `json:"name"`
	From      uint64       `json:"from"`
	To        uint64       `json:"to"`
	Layers    []layerDelta `json:"layers"`
	Reordered bool         `json:"reordered"` // layers that both have
	Checks    []checkDelta `json:"checks,omitempty"`
}

// layerDelta is one layer that differs. What only one of the revisions has is
// empty in the other.
type layerDelta struct {
	Component  string        `json:"component"`
	From       string        `json:"from"`
	To         string        `json:"to"`
	FromDigest digest.Digest `json:"from_digest"`
	ToDigest   digest.Digest `json:"to_digest"`
}

func (d difference) Text(w io.Writer) error {
	t := ownTable(w)
	for _, l := range d.Layers {
		switch {
		case l.From == "":
			fmt.Fprintf(t, "%s\tadded\t%s\t\n", l.Component, l.To)
		case l.To == "":
			fmt.Fprintf(t, "%s\tremoved\t%s\t\n", l.Component, l.From)
		case l.From == l.To:
			fmt.Fprintf(t, "%s\tcontent\t%s\t\n", l.Component, l.To)
		default:
			fmt.Fprintf(t, "%s\tchanged\t%s -> %s\t\n", l.Component, l.From, l.To)
		}
	}
	if d.Reordered {
		fmt.Fprint(t, "-\treordered\t\n")
	}
	for _, c := range d.Checks {
		fmt.Fprintf(t, "check\t%s\t%s\t\n", c.Change, Clean(c.Text))
	}
	return t.Flush()
}

func (d *diffconfOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := d.alone(args); err != nil {
		return nil, err
	}
	return d.compare(ctx, s)
}

// compare compares the two revisions.
func (d *diffconfOp) compare(ctx context.Context, s *Session) (difference, error) {
	out := difference{Name: d.name, Layers: []layerDelta{}}
	revs, err := s.Registry.History(ctx, d.name)
	if err != nil {
		return out, err
	}
	to := d.to
	if to == 0 {
		to = revs[0].Revision
	}
	from := d.from
	if from == 0 {
		from = to - 1
	}
	out.From, out.To = from, to
	was, err := revisionAt(revs, d.name, from)
	if err != nil {
		return out, err
	}
	is, err := revisionAt(revs, d.name, to)
	if err != nil {
		return out, err
	}
	out.compare(was.Layers, is.Layers)
	out.Checks = compareChecks(was.Verify, is.Verify)
	return out, nil
}

// revisionAt returns what revision n is about. Before the first revision, and
// while it was deleted, a configuration is empty.
func revisionAt(revs []registry.Revision, name string, n uint64) (wire.Configuration, error) {
	if n == 0 {
		return wire.Configuration{}, nil
	}
	i := slices.IndexFunc(revs, func(r registry.Revision) bool { return r.Revision == n })
	switch {
	case i < 0:
		return wire.Configuration{}, &registry.Error{
			Kind: registry.ErrNotFound, Text: fmt.Sprintf("configuration %q has no revision %d", name, n),
			Hint: fmt.Sprintf("history -name %s lists them", name),
		}
	case revs[i].Deleted:
		return wire.Configuration{}, nil
	}
	return revs[i].Configuration, nil
}

// compare fills in what differs: layers in the order of was, new ones last.
func (d *difference) compare(was, is []wire.Layer) {
	var kept, order []string // names that both have, in the order of each
	for _, a := range was {
		i := slices.IndexFunc(is, func(b wire.Layer) bool { return b.Name == a.Name })
		if i < 0 {
			d.Layers = append(d.Layers, layerDelta{Component: a.Name, From: a.Version, FromDigest: a.Hash})
			continue
		}
		kept = append(kept, a.Name)
		if b := is[i]; a.Version != b.Version || a.Hash != b.Hash {
			d.Layers = append(d.Layers, layerDelta{a.Name, a.Version, b.Version, a.Hash, b.Hash})
		}
	}
	for _, b := range is {
		if slices.Contains(kept, b.Name) {
			order = append(order, b.Name)
			continue
		}
		d.Layers = append(d.Layers, layerDelta{Component: b.Name, To: b.Version, ToDigest: b.Hash})
	}
	d.Reordered = !slices.Equal(kept, order)
}
