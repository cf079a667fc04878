package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
)

func (s *settings) pinCommand() cli.Command {
	return cli.Command{
		Name: "pin", Args: "ROOT", Named: true, Short: "keep a root from collection",
		Long: `Whatever -keep, -max-bytes and -min-free say, until unpin. ROOT is its name, or the number of
the deployment that has made it, with which the name begins, and never a revision; gc -explain
lists them, and who keeps what. No agent is needed. A second pin replaces the reason of the first.`,
		Examples: []string{"deploy-agent pin -name web -reason 'the last one with the old schema' 42"},
		Statuses: []wire.Status{wire.NotFound, wire.Denied},
		New:      func() cli.Op { return &pinOp{place: place{s: s}, pinned: true} },
	}
}

func (s *settings) unpinCommand() cli.Command {
	return cli.Command{
		Name: "unpin", Args: "ROOT", Named: true, Short: "let a root go that was pinned",
		Long:     "It goes with the next collection, unless another rule keeps it: see gc -explain.",
		Examples: []string{"deploy-agent unpin -name web 42"},
		Statuses: []wire.Status{wire.NotFound, wire.Denied},
		New:      func() cli.Op { return &pinOp{place: place{s: s}} },
	}
}

// pinOp is one call of pin or unpin.
type pinOp struct {
	place
	pinned bool
	reason string
}

// Flags defines the flags.
func (v *pinOp) Flags(fs *pflag.FlagSet) {
	v.place.flags(fs)
	if v.pinned {
		fs.StringVar(&v.reason, "reason", "", "`text` that says why")
	}
}

// pinResult is that of both.
type pinResult struct {
	Schema schema `json:"schema"`
	Root   string `json:"root"`
	Pinned bool   `json:"pinned"`
	Reason string `json:"reason,omitempty"`
	Was    bool   `json:"was_pinned,omitempty"` // by unpin
}

// Text is a line.
func (r pinResult) Text(w io.Writer) error {
	what := "is pinned"
	switch {
	case !r.Pinned && r.Was:
		what = "is no longer pinned"
	case !r.Pinned:
		what = "was not pinned"
	}
	_, err := fmt.Fprintf(w, "%s %s\n", r.Root, what)
	return err
}

// Run pins the root, or takes the pin away.
func (v *pinOp) Run(_ context.Context, o *cli.IO, args []string) error {
	if len(args) != 1 {
		return cli.Usage("should be followed by one root: its name or its number")
	}
	if err := v.find(); err != nil {
		return err
	}
	root, err := agent.FindRoot(v.at.dir, args[0])
	if err == nil {
		v.noteNumber(o, args[0], root)
	}
	was := false
	if err == nil && v.pinned {
		err = agent.Pin(v.at.dir, root, v.reason)
	} else if err == nil {
		was, err = agent.Unpin(v.at.dir, root)
	}
	if errors.Is(err, fs.ErrNotExist) {
		hint := "'deploy-agent gc -explain' lists the roots; -dir or -name says whose"
		if other := v.ofRevision(args[0]); other != "" {
			hint = "a number counts deployments; of revision " + args[0] + " is " + other
		}
		return cli.WithHint(cli.WithStatus(err, wire.NotFound), hint)
	}
	if err != nil {
		return v.lost(err)
	}
	return v.show(o, pinResult{Root: "roots/" + root, Pinned: v.pinned, Was: was, Reason: v.reason})
}

// noteNumber says that a number was taken for that of a deployment, where a root of this
// revision is another one.
func (v *pinOp) noteNumber(o *cli.IO, text, root string) {
	if other := v.ofRevision(text); other != "" && other != "roots/"+root {
		fmt.Fprintf(o.Stderr, "note: a number counts deployments, so %s is roots/%s; of revision %s is %s\n", text, root, text, other)
	}
}

// ofRevision returns the root that was committed last of those of a revision; "": there is
// none, or text is no number.
func (v *pinOp) ofRevision(text string) (root string) {
	kept, _ := agent.Kept(v.at.dir) // no error: then nothing is said of it
	for _, r := range kept {
		if strconv.FormatUint(r.Revision, 10) == text {
			root = r.Root
		}
	}
	return root
}
