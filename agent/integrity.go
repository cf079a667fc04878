package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// Condition is how a root compares with its manifest.
type Condition struct {
	Root        string       `json:"root"`              // relative to the agent's directory
	Live        bool         `json:"live"`              // `current` names it
	Unknown     string       `json:"unknown,omitzero"`  // why it cannot be compared; the rest is empty then
	Modified    int          `json:"modified,omitzero"` // paths
	Missing     int          `json:"missing,omitzero"`
	Extra       int          `json:"extra,omitzero"`
	Differences []Difference `json:"differences,omitempty"` // the first of them

	proof *proof // nil: there is none
}

// maxDifferences are listed; all are counted.
const maxDifferences = 1000

// Whole reports whether the root is as it was unpacked.
func (c *Condition) Whole() bool { return c.rank() == 0 }

// rank orders conditions, the best first.
func (c *Condition) rank() int {
	switch {
	case c.Modified+c.Missing > 0:
		return 3
	case c.Unknown != "":
		return 2
	case c.Extra > 0:
		return 1
	}
	return 0
}

// String is one line: "whole", or what is wrong, with the first paths.
func (c *Condition) String() string {
	if c.Unknown != "" {
		return c.Unknown
	}
	if c.Whole() {
		return "whole"
	}
	var first []string
	for _, d := range c.Differences[:min(3, len(c.Differences))] {
		first = append(first, d.String())
	}
	s := strings.Join(first, "; ")
	if more := c.Modified + c.Missing + c.Extra - len(first); more > 0 {
		s += fmt.Sprintf("; and %d more", more)
	}
	return s
}

// Text writes a line for each path.
func (c *Condition) Text(w io.Writer) error {
	name := c.Root
	if c.Live {
		name += " (live)"
	}
	if c.Unknown != "" || c.Whole() {
		_, err := fmt.Fprintf(w, "%s: %s\n", name, c)
		return err
	}
	if _, err := fmt.Fprintf(w, "%s: %d modified, %d missing, %d extra\n", name, c.Modified, c.Missing, c.Extra); err != nil {
		return err
	}
	for _, d := range c.Differences {
		if _, err := fmt.Fprintf(w, "  %s\n", d); err != nil {
			return err
		}
	}
	if more := c.Modified + c.Missing + c.Extra - len(c.Differences); more > 0 {
		_, err := fmt.Fprintf(w, "  and %d more\n", more)
		return err
	}
	return nil
}

// examine compares a root of the agent's directory dir with its manifest. Quick:
// see How.Since. The error is of ctx.
func examine(ctx context.Context, dir string, r *Root, how How) (*Condition, error) {
	c := &Condition{Root: r.Dir}
	f, err := os.Open(filepath.Join(dir, "roots", filepath.Base(r.Dir)+".manifest"))
	if errors.Is(err, fs.ErrNotExist) {
		c.Unknown = "there is no manifest of it"
		return c, nil
	}
	if err != nil {
		c.Unknown = "manifest: " + line(err)
		return c, nil
	}
	defer f.Close()
	if !r.Manifest.IsZero() {
		if err := provedFile(f, r.Manifest); err != nil {
			c.Unknown = "manifest damaged: " + line(err)
			return c, nil
		}
	}
	for d, err := range Compare(ctx, filepath.Join(dir, r.Dir), f, how) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			*c = Condition{Root: r.Dir, Unknown: line(err)}
			if errors.Is(err, manifest.ErrInvalid) {
				c.Unknown = "manifest damaged: " + line(err)
			}
			return c, nil
		}
		c.count(d)
	}
	return c, nil
}

func (c *Condition) count(d Difference) {
	switch d.Kind {
	case Modified:
		c.Modified++
	case Missing:
		c.Missing++
	case Extra:
		c.Extra++
	}
	if len(c.Differences) < maxDifferences {
		c.Differences = append(c.Differences, d)
	}
}

// provedFile compares f with its digest, and goes back to its start.
func provedFile(f *os.File, d digest.Digest) error {
	if _, err := io.Copy(io.Discard, digest.NewReader(f, d)); err != nil {
		return err
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}
