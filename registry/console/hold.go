package console

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"deploytools/registry/wire"
)

// adopting is an Op whose first word may stand for its flag -name.
type adopting interface {
	// adopt takes that word, unless the flag has said it, and returns the others.
	adopt(args []string) []string
}

func adopted(op Op, args []string) []string {
	if op, ok := op.(adopting); ok {
		return op.adopt(args)
	}
	return args
}

// configArg is a configName that may also be the first word behind the flags.
type configArg struct{ configName }

func (c *configArg) adopt(args []string) []string { return adoptName(&c.name, args) }

func (c *configArg) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag == "" && c.name == "" {
		flag = "name"
	}
	return c.configName.suggest(ctx, s, flag)
}

// alone fails unless the name is given, and no word follows it.
func (c *configArg) alone(args []string) error { return alone(c.name, args) }

func alone(name string, args []string) error {
	if len(args) > 0 {
		return usage("unexpected argument %q", args[0])
	}
	return given(name)
}

// adoptName sets a name that was not given by its flag to the first word, if there
// is one, and returns the others.
func adoptName(name *string, args []string) []string {
	if *name == "" && len(args) > 0 {
		*name, args = args[0], args[1:]
	}
	return args
}

type holdOp struct {
	configArg
	expecting
	reason, until string
}

func (h *holdOp) Flags(fs *pflag.FlagSet) {
	h.configArg.Flags(fs)
	fs.StringVar(&h.reason, "reason", "", "`text` that says why; agents show it")
	fs.StringVar(&h.until, "until", "", "`time` when it ends by itself, or how long it lasts, such as 2h; without it, when somebody resumes")
	h.expecting.Flags(fs)
}

func (h *holdOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := h.alone(args); err != nil {
		return nil, err
	}
	until, err := Moment("until", h.until, s.Registry.Now(), 1)
	if err != nil {
		return nil, err
	}
	return h.told(s.Registry.Hold(ctx, h.act(s), h.name, h.reason, until))
}

type resumeOp struct {
	configArg
	expecting
}

func (r *resumeOp) Flags(fs *pflag.FlagSet) {
	r.configArg.Flags(fs)
	r.expecting.Flags(fs)
}

func (r *resumeOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := r.alone(args); err != nil {
		return nil, err
	}
	return r.told(s.Registry.EndHold(ctx, r.act(s), r.name))
}

// heldRow is a hold that is in force.
type heldRow struct {
	Reason string    `json:"reason"`
	Until  time.Time `json:"until,omitzero"`
}

// String returns the hold in words.
func (h heldRow) String() string {
	if h.Until.IsZero() {
		return h.Reason
	}
	return h.Reason + ", until " + timeText(h.Until)
}

// noteHold says beside the result that a configuration is held; nil: no.
func (s *Session) noteHold(name string, h *wire.Hold) {
	if h != nil {
		fmt.Fprintf(s.Stderr, "note: %s is held: %s; agents start nothing new\n", name, heldRow{h.Reason, h.Until})
	}
}
