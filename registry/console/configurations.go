package console

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// configName completes the flag -name of commands about configurations.
type configName struct{ name string }

func (c *configName) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.name, "name", "", "`name` of the configuration")
}

func (c *configName) configuration() string { return c.name }

func (c *configName) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	switch flag {
	case "name":
		return configNames(ctx, s)
	case "component":
		rev, err := s.Registry.Configuration(ctx, c.name)
		if err != nil {
			return s.Registry.Components(ctx)
		}
		var out []string
		for _, l := range rev.Layers {
			out = append(out, l.Name)
		}
		return out, nil
	case "layer":
		return layerNames(ctx, s)
	case "from", "to":
		revs, err := s.Registry.History(ctx, c.name)
		var out []string
		for _, rev := range revs {
			out = append(out, strconv.FormatUint(rev.Revision, 10))
		}
		return out, err
	}
	return nil, nil
}

// configNames returns the names of the caller's configurations.
func configNames(ctx context.Context, s *Session) ([]string, error) {
	revs, err := s.Registry.Configurations(ctx)
	var out []string
	for _, rev := range revs {
		if s.Caller.Configs.Holds(rev.Name) {
			out = append(out, rev.Name)
		}
	}
	return out, err
}

// layerNames returns every COMPONENT:VERSION.
func layerNames(ctx context.Context, s *Session) ([]string, error) {
	components, err := s.Registry.Components(ctx)
	var out []string
	for _, name := range components {
		versions, err := s.Registry.Versions(ctx, name)
		if err != nil {
			continue // deleted meanwhile
		}
		for _, v := range versions {
			out = append(out, name+":"+v.Version)
		}
	}
	return out, err
}

func parseLayers(words []string) ([]registry.LayerRef, error) {
	var out []registry.LayerRef
	for _, w := range words {
		l, err := registry.ParseLayerRef(w)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

type configurationsOp struct{}

func (*configurationsOp) Flags(*pflag.FlagSet) {}

func (*configurationsOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	revs, err := s.Registry.Configurations(ctx)
	var names []string
	held := map[string]heldRow{}
	for _, rev := range revs {
		if !s.Caller.Configs.Holds(rev.Name) {
			continue
		}
		names = append(names, rev.Name)
		if rev.Hold != nil {
			held[rev.Name] = heldRow{rev.Hold.Reason, rev.Hold.Until}
			if !s.json {
				s.noteHold(rev.Name, rev.Hold)
			}
		}
	}
	return configurationList{newNameList(names), held}, err
}

// configurationList is a list of names, and the holds of those that are held.
type configurationList struct {
	nameList
	Held map[string]heldRow `json:"held,omitempty"`
}

type showconfOp struct {
	configArg
	verbose, digests bool
}

func (c *showconfOp) Flags(fs *pflag.FlagSet) {
	c.configArg.Flags(fs)
	fs.BoolVar(&c.digests, "digests", false, "show the digest of each layer beside its version")
	fs.BoolVarP(&c.verbose, "verbose", "v", false, "show when it was changed, its hash and its checks")
}

type configuration struct {
	Schema   Schema        `json:"schema"`
	Name     string        `json:"name"`
	Revision uint64        `json:"revision"`
	Changed  time.Time     `json:"changed"`
	By       string        `json:"by"`
	Hash     digest.Digest `json:"hash"`
	Digest   digest.Digest `json:"digest"`
	Layers   []layerRow    `json:"layers"`
	Note     string        `json:"note,omitempty"`
	Held     *heldRow      `json:"held,omitempty"`
	Verify   *verifyRow    `json:"verify,omitempty"`

	verbose, digests bool
}

type layerRow struct {
	Component string        `json:"component"`
	Version   string        `json:"version"`
	Added     time.Time     `json:"added"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

func configurationOf(rev *registry.Revision) configuration {
	c := configuration{Name: rev.Name, Revision: rev.Revision, Changed: rev.Mtime, By: Clean(rev.By), Hash: rev.Hash, Digest: rev.Digest, Note: rev.Note, Verify: verifyOf(rev.Verify)}
	if rev.Hold != nil {
		c.Held = &heldRow{rev.Hold.Reason, rev.Hold.Until}
	}
	for _, l := range rev.Layers {
		c.Layers = append(c.Layers, layerRow{l.Name, l.Version, l.Ctime, l.Hash, l.Size})
	}
	return c
}

func (c configuration) Text(w io.Writer) error {
	if c.verbose {
		fmt.Fprintf(w, "Name:\t%s\nMtime:\t%s\nHash:\t%s\n", c.Name, timeText(c.Changed), c.Hash)
		if c.Note != "" {
			fmt.Fprintf(w, "Note:\t%s\n", c.Note)
		}
		if c.Held != nil {
			fmt.Fprintf(w, "Held:\t%s\n", c.Held)
		}
		if c.Verify != nil {
			c.Verify.text(w)
		}
		fmt.Fprintln(w)
	}
	t := table(w)
	if c.digests {
		t = ownTable(w)
	}
	for _, l := range c.Layers {
		fmt.Fprintf(t, "%s\t%s\t%s\t", l.Component, l.Version, timeText(l.Added))
		if c.digests {
			fmt.Fprintf(t, "%s\t", l.Digest)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func (c *showconfOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := c.alone(args); err != nil {
		return nil, err
	}
	rev, err := s.Registry.Configuration(ctx, c.name)
	if err != nil {
		return nil, err
	}
	out := configurationOf(rev)
	out.verbose, out.digests = c.verbose, c.digests
	if !c.verbose && !s.json { // which show it
		s.noteHold(c.name, rev.Hold)
	}
	return out, nil
}
