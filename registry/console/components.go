package console

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// timeText is how listings show a time: as the original tool set did.
func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// table aligns cells that end in a tab, with three spaces between them, also
// behind the last: as the original tool set did.
func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 3, ' ', 0) }

// nameList is a list of names, one a line.
type nameList struct {
	Schema Schema   `json:"schema"`
	Names  []string `json:"names"`
}

func newNameList(names []string) nameList {
	if names == nil {
		names = []string{}
	}
	return nameList{Names: names}
}

func (l nameList) Text(w io.Writer) error {
	for _, name := range l.Names {
		if _, err := fmt.Fprintln(w, name); err != nil {
			return err
		}
	}
	return nil
}

// componentName completes the flag -name of commands about components.
type componentName struct{ name string }

func (c *componentName) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.name, "name", "", "`name` of the component")
}

func (c *componentName) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	switch flag {
	case "name":
		return s.Registry.Components(ctx)
	case "version":
		versions, err := s.Registry.Versions(ctx, c.name)
		var out []string
		for _, v := range versions {
			out = append(out, v.Version)
		}
		return out, err
	}
	return nil, nil
}

// given fails unless the name is set.
func given(name string) error {
	if name == "" {
		return usage("-name should be set")
	}
	return nil
}

type componentsOp struct{}

func (*componentsOp) Flags(*pflag.FlagSet) {}

func (*componentsOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	names, err := s.Registry.Components(ctx)
	return newNameList(names), err
}

type showcompOp struct{ componentName }

type versionList struct {
	Schema    Schema       `json:"schema"`
	Component string       `json:"component"`
	Versions  []versionRow `json:"versions"`
}

type versionRow struct {
	Version  string        `json:"version"`
	Added    time.Time     `json:"added"`
	By       string        `json:"by"`
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size"`
	Unpacked int64         `json:"unpacked"`
	Entries  int64         `json:"entries"`
}

func (l versionList) Text(w io.Writer) error {
	t := table(w)
	for _, v := range l.Versions {
		fmt.Fprintf(t, "%s\t%s\t\n", timeText(v.Added), v.Version)
	}
	return t.Flush()
}

func (c *showcompOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	if err := given(c.name); err != nil {
		return nil, err
	}
	versions, err := s.Registry.Versions(ctx, c.name)
	out := versionList{Component: c.name}
	for _, v := range versions {
		out.Versions = append(out.Versions, versionRow{v.Version, v.Added, Clean(v.By), v.Digest, v.Size, v.Unpacked, v.Entries})
	}
	return out, err
}

type addverOp struct {
	componentName
	version, hash string
	mustBeNew     bool
}

func (a *addverOp) Flags(fs *pflag.FlagSet) {
	a.componentName.Flags(fs)
	fs.StringVar(&a.version, "version", "", "`name` of the new version")
	fs.StringVar(&a.hash, "hash", "", "`digest` of the content: SHA-256, 64 hexadecimal digits")
	fs.BoolVar(&a.mustBeNew, "must-be-new", false, "fail if the version exists with the same content")
}

func (a *addverOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag != "hash" {
		return a.componentName.suggest(ctx, s, flag)
	}
	uploads, err := s.Registry.Uploads(ctx)
	var out []string
	for _, u := range uploads {
		if u.Complete {
			out = append(out, u.Digest.String())
		}
	}
	return out, err
}

type added struct {
	Schema   Schema        `json:"schema"`
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Digest   digest.Digest `json:"digest"`
	Existed  bool          `json:"existed"`
	Warnings []string      `json:"warnings,omitempty"`
	Removed  []string      `json:"removed,omitempty"` // older versions
}

// Text prints nothing: a version that was added is no news. What is news goes
// to Stderr.
func (added) Text(io.Writer) error { return nil }

func (a *addverOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	if a.name == "" || a.version == "" || a.hash == "" {
		return nil, usage("name, version and hash should all be set")
	}
	d, err := digest.Parse(strings.ToLower(a.hash)) // some tools print upper case
	if err != nil {
		return nil, usage("hash should be a hex representation of content sha256 sum, 64 chars long")
	}
	got, err := s.Registry.AddVersion(ctx, s.Caller, a.name, a.version, d, func(done, total int64) {
		fmt.Fprintf(s.Stderr, "checking the archive: %d of %d bytes\n", done, total)
	})
	if err != nil {
		return nil, err
	}
	if got.Existed && a.mustBeNew {
		return nil, &registry.Error{Kind: registry.ErrConflict, Text: fmt.Sprintf("version %q already exists", a.version)}
	}
	if got.Existed {
		fmt.Fprintf(s.Stderr, "note: version %s of %s exists already, with the same content\n", a.version, a.name)
	}
	out := added{Name: a.name, Version: a.version, Digest: d, Existed: got.Existed, Warnings: got.Warnings, Removed: got.Trimmed}
	for _, warning := range got.Warnings {
		fmt.Fprintf(s.Stderr, "warning: %s\n", Clean(warning))
	}
	for _, version := range got.Trimmed {
		fmt.Fprintf(s.Stderr, "note: removed the old version %s, which nothing uses\n", version)
	}
	return out, nil
}

type delverOp struct {
	componentName
	version string
}

func (d *delverOp) Flags(fs *pflag.FlagSet) {
	d.componentName.Flags(fs)
	fs.StringVar(&d.version, "version", "", "`name` of the version")
}

func (d *delverOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	if d.name == "" || d.version == "" {
		return nil, usage("name and version should both be set")
	}
	return nil, s.Registry.DeleteVersion(ctx, d.name, d.version)
}

type delcompOp struct {
	componentName
	force bool
}

func (d *delcompOp) Flags(fs *pflag.FlagSet) {
	d.componentName.Flags(fs)
	fs.BoolVar(&d.force, "force", false, "yes, delete it")
}

// noForce keeps the text of the original tool set.
const noForce = "Run command with -force flag to confirm removal"

func (d *delcompOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	if err := given(d.name); err != nil {
		return nil, err
	}
	if !d.force {
		return nil, usage(noForce)
	}
	return nil, s.Registry.DeleteComponent(ctx, d.name)
}
