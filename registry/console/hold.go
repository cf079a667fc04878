package console

import (
	"context"

	"github.com/spf13/pflag"
)

// nameOr takes the name from the word behind the flags where -name gives none.
func nameOr(name *string, args []string) error {
	if *name == "" && len(args) > 0 {
		*name, args = args[0], args[1:]
	}
	if len(args) > 0 {
		return usage("unexpected argument %q", args[0])
	}
	return given(*name)
}

type holdOp struct {
	configName
	expecting
	reason, until string
}

func (h *holdOp) Flags(fs *pflag.FlagSet) {
	h.configName.Flags(fs)
	fs.StringVar(&h.reason, "reason", "", "`text` that says why; agents show it")
	fs.StringVar(&h.until, "until", "", "`time` when it ends by itself, or how long it lasts, such as 2h; without it, when somebody resumes")
	h.expecting.Flags(fs)
}

func (h *holdOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	return h.configName.suggest(ctx, s, orName(flag))
}

// orName is the flag that the words behind the flags stand for.
func orName(flag string) string {
	if flag == "" {
		return "name"
	}
	return flag
}

func (h *holdOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := nameOr(&h.name, args); err != nil {
		return nil, err
	}
	until, err := moment("until", h.until, s.Registry.Now(), 1)
	if err != nil {
		return nil, err
	}
	return h.told(s.Registry.Hold(ctx, h.act(s), h.name, h.reason, until))
}

type resumeOp struct {
	configName
	expecting
}

func (r *resumeOp) Flags(fs *pflag.FlagSet) {
	r.configName.Flags(fs)
	r.expecting.Flags(fs)
}

func (r *resumeOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	return r.configName.suggest(ctx, s, orName(flag))
}

func (r *resumeOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := nameOr(&r.name, args); err != nil {
		return nil, err
	}
	return r.told(s.Registry.Resume(ctx, r.act(s), r.name))
}
