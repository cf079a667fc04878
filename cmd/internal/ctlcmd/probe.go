package ctlcmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
	"deploytools/verify"
	"deploytools/verify/spec"
)

func probeCommand(r *remote) cli.Command {
	return cli.Command{
		Name: "probe", Args: "[CHECK...]", Short: "look from here with the checks that agents use, and explain what is found",
		Long: `A CHECK is what the agent's -verify takes. With -from the checks are those that travel with a
configuration at the registry; of these, what looks into the host itself is left out. With -to,
addresses of the loopback interface are those of that host: a check that an agent makes at
localhost:443 is made at HOST:443, and asks for the same names.

Everything is looked at once. With -verify-total it is looked at until all checks have passed
-successes times in a row.`,
		Examples: []string{
			"deployctl probe type=tls,addr=www.example.org:443,fingerprint=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
			"deployctl probe type=tls,addr=www.example.org:443,cert=site.pem -root build/etc",
			"deployctl probe type=tls,addr=mail.example.org:25,starttls=smtp,cert=x -cert /etc/ssl/mail.pem",
			"deployctl probe -from project1 -to web1.example.org",
			"deployctl probe -json type=tcp,addr=web1.example.org:22,expect=SSH-",
		},
		Statuses: transportStatuses,
		New:      func() cli.Op { return &probe{r: r} },
	}
}

// probe is one call of the command.
type probe struct {
	r         *remote
	from, to  string
	root      string
	cert      string
	successes int
	total     time.Duration
	json      bool
}

// Flags defines the flags.
func (p *probe) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&p.from, "from", "", "`name` of the configuration whose checks are taken, and what {newid}, {name} and {revision} stand for")
	cli.NamedFlag(fs, "from")
	fs.StringVar(&p.to, "to", "", "`host` that is meant where a check says localhost")
	fs.StringVar(&p.root, "root", "", "`directory` below which cert= and roots= are files, such as an unpacked layer")
	cli.FileFlag(fs, "root")
	fs.StringVar(&p.cert, "cert", "", "`file` with the certificate that should be served, in place of what cert= says, which has to be there: cert=x will do")
	cli.FileFlag(fs, "cert")
	fs.IntVar(&p.successes, "successes", spec.DefaultSuccesses, "`number` of times in a row that every check has to pass")
	fs.DurationVar(&p.total, "verify-total", 0, "`time` that the checks have until they pass; 0 is one look")
	fs.BoolVar(&p.json, "json", false, "print one object")
}

// Run looks, and says what was found.
func (p *probe) Run(ctx context.Context, o *cli.IO, args []string) error {
	s := spec.Spec{Successes: p.successes, Total: p.total}
	for _, text := range args {
		c, err := spec.Parse(text, spec.FromHost)
		if err != nil {
			return unfit(err, text)
		}
		s.Checks = append(s.Checks, c)
	}
	switch {
	case len(args) == 0 && p.from == "":
		return cli.WithHint(cli.Usage("nothing to look at: give checks, or -from NAME"), usualHint)
	case p.root != "" && p.cert != "":
		return cli.Usage("-root and -cert exclude each other")
	case p.successes > 1 && p.total == 0:
		return cli.Usage("-successes above 1 needs -verify-total: the time for them")
	}
	vars, err := p.vars()
	if err != nil {
		return err
	}
	if p.from != "" {
		more, err := p.fetch(ctx, o, &vars)
		if err != nil {
			return err
		}
		own := spec.Part{From: spec.Host, Spec: s} // as on a host: a check given here takes the place of one of its name
		s, _ = spec.Merge(own, spec.Part{From: spec.Configuration, Spec: spec.Spec{Checks: more}})
	}
	if s, err = p.aimed(s); err != nil {
		return err
	}
	if err := s.Validate(spec.FromHost); err != nil {
		return unfit(err, args...)
	}
	look := verify.Once
	if p.total > 0 {
		look = verify.Run
	}
	report := look(ctx, s, vars)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := p.print(o, report); err != nil {
		return err
	}
	if !report.Verified {
		return &cli.Error{Status: wire.Failed}
	}
	return nil
}

// usualHint has the whole of the check that is asked for most.
const usualHint = "the usual check is 'deployctl probe type=tls,addr=www.example.org:443,fingerprint=DIGEST', with the digits that 'openssl x509 -in site.pem -noout -fingerprint -sha256' prints; 'deployctl probe -h' has others"

// unfit is an error of checks.
func unfit(err error, checks ...string) error {
	e := &cli.Error{Status: wire.Usage, Err: err}
	if slices.ContainsFunc(checks, func(text string) bool { return strings.Contains(text, "type="+string(spec.TLS)) }) {
		e.Hint = usualHint
	}
	return e
}

// vars is what the checks may refer to here.
func (p *probe) vars() (verify.Vars, error) {
	dir := p.root
	if p.cert != "" {
		if _, err := os.Stat(p.cert); err != nil {
			return verify.Vars{}, err
		}
		dir = filepath.Dir(p.cert)
	}
	if dir == "" {
		return verify.Vars{}, nil
	}
	dir, err := filepath.Abs(dir)
	return verify.Vars{NewRoot: dir}, err
}

// fetch returns the checks of the configuration -from, and what its placeholders
// stand for.
func (p *probe) fetch(ctx context.Context, o *cli.IO, vars *verify.Vars) ([]spec.Check, error) {
	if err := wire.CheckName(p.from); err != nil {
		return nil, cli.Usage("-from %q: %w", p.from, err)
	}
	var stdout, stderr bytes.Buffer
	quiet := *o
	quiet.Stdout, quiet.Stderr = &stdout, &stderr
	if err := p.r.run(ctx, &quiet, []string{"showconf", "-json", "-name", p.from}, nil); err != nil {
		return nil, said(err, stderr.String())
	}
	var c struct {
		Name     string
		Revision uint64
		Hash     string
		Verify   *struct{ Checks []struct{ Name, Text string } }
	}
	if err := json.Unmarshal(stdout.Bytes(), &c); err != nil {
		return nil, fmt.Errorf("the registry's answer about %s: %w", p.from, err)
	}
	vars.NewID, vars.Name, vars.Revision = c.Hash, c.Name, strconv.FormatUint(c.Revision, 10)
	if c.Verify == nil {
		return nil, cli.WithHint(fmt.Errorf("no checks travel with configuration %q", p.from),
			"'deployctl changeconf -name "+p.from+" -verify CHECK' adds one; those in a root or in the flags of an agent are known to its host only")
	}
	var all []spec.Check
	for _, text := range c.Verify.Checks {
		one, err := spec.Parse(text.Text, spec.FromRegistry)
		switch {
		case errors.Is(err, spec.ErrHostOnly):
			warn(o, []string{"left out, since it is for the host itself: " + text.Text})
			continue
		case err != nil:
			return nil, cli.WithHint(fmt.Errorf("a check of configuration %q: %w", p.from, err), "a newer deployctl may know it")
		}
		one.Name = text.Name // what it is called elsewhere, also where one before it is left out
		all = append(all, one)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("none of the checks of configuration %q can be made from here", p.from)
	}
	return all, nil
}

// said is err of a command with -json, with what the registry said of it.
func said(err error, stderr string) error {
	var told struct{ Error, Hint string }
	if json.Unmarshal([]byte(stderr), &told) != nil || told.Error == "" {
		return err
	}
	return &cli.Error{Status: cli.StatusOf(err), Hint: told.Hint, Err: errors.New(told.Error)}
}

// aimed returns s with the checks at what -to and -cert say.
func (p *probe) aimed(s spec.Spec) (spec.Spec, error) {
	if p.cert != "" {
		for i, c := range s.Checks {
			if c.Type == spec.TLS && c.Cert != "" {
				s.Checks[i].Cert = filepath.Base(p.cert)
			}
		}
	}
	if p.to == "" {
		return s, nil
	}
	s = s.WithDefaults()
	for i, c := range s.Checks {
		if s.Checks[i] = c.At(p.to); s.Checks[i].Validate(spec.FromHost) != nil {
			return s, cli.Usage("-to %q: should be the name or address of a host, without a port", p.to)
		}
	}
	return s, nil
}
