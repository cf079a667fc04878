package console

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"deploytools/registry/wire"
)

// configArg is a configName that may also be the word behind the flags.
type configArg struct{ configName }

func (c *configArg) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag == "" && c.name == "" {
		flag = "name"
	}
	return c.configName.suggest(ctx, s, flag)
}

// take sets the name, which is to be one of the caller's.
func (c *configArg) take(s *Session, args []string) error {
	if err := takeName(&c.name, args); err != nil {
		return err
	}
	return s.Caller.CheckScope(c.name)
}

// takeName sets a name that was not given by its flag to the one word that
// there may be.
func takeName(name *string, args []string) error {
	if *name == "" && len(args) > 0 {
		*name, args = args[0], args[1:]
	}
	if len(args) > 0 {
		return usage("unexpected argument %q", args[0])
	}
	return given(*name)
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
	if err := h.take(s, args); err != nil {
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
	if err := r.take(s, args); err != nil {
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
