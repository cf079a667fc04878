package agentcmd

import (
	"errors"
	"os"
	"time"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/layerflags"
	"deploytools/layers"
	"deploytools/registry/wire"
	"deploytools/verify/spec"
)

// settings are the flags.
type settings struct {
	args    []string // all the words
	rescued []string // configuration and deployment to take back; nil: an agent as any

	addr         string
	fingerprints []string
	knownHosts   []string
	key          string
	instance     string
	maxRate      bytesRate

	names        []string
	settingsFile string
	set          *pflag.FlagSet // that these flags were defined in last

	name      string // of the one configuration that a part is for
	dir       string
	stateFile string
	poll      time.Duration
	once      bool
	retry     bool
	repair    bool
	dryRun    bool

	script, checkScript, removeScript string
	notify                            string
	hookTimeout                       time.Duration
	hookUser                          string

	checks    []string
	successes int
	total     time.Duration
	soak      time.Duration
	baseline  string
	windows   []string

	publish      []string
	publishAllow []string

	verifySource string
	allowExec    bool
	verifyEvery  time.Duration
	warnExpiry   time.Duration
	checkEvery   time.Duration

	keep              int
	evidence          int
	cleanOld          bool
	maxBytes, minFree string

	layers layers.Options
	links  []string

	http        string
	metricsFile string
	logFormat   string
	verbose     bool
}

func (s *settings) flags(fs *pflag.FlagSet) {
	s.set = fs
	fs.StringVar(&s.addr, "addr", "localhost:2022", "`host:port` of the registry")
	fs.StringSliceVar(&s.fingerprints, "fp", nil, "`fingerprint` of the registry's host key, SHA256:...; may be repeated, or be several with commas, one of which has to fit. Without it known_hosts decides")
	fs.StringArrayVar(&s.knownHosts, "known-hosts", nil, "known_hosts `file`; may be repeated (default ~/.ssh/known_hosts and the system's)")
	fs.StringVar(&s.key, "key", "id_ecdsa", "private key `file`")
	fs.StringVar(&s.instance, "instance", "", "`text` that tells this host apart from others whose agents have the same key: up to 32 lower-case letters and digits (default from the machine's ID)")
	fs.Var(&s.maxRate, "max-rate", "`bytes` a second that are received at most, for all configurations together, such as 500K or 10M; 0 is no limit")
	fs.StringArrayVar(&s.names, "name", nil, "`name` of the configuration, or NAME=DIRECTORY; may be repeated, one a line in the variable. A name without a directory uses -dir itself")
	fs.StringVar(&s.dir, "dir", ".", "`directory` for roots, layers and records; one agent works in it at a time")
	fs.StringVar(&s.settingsFile, "settings", "", "`file` with settings of one configuration: variables such as DEPLOY_AGENT_SCRIPT, which count more than the environment's. In the name of each file here {name} stands for the configuration's")
	fs.StringVar(&s.stateFile, "state", "state.json", "`file` that shows what is deployed, for people and scripts; relative to the working directory, not to -dir, but to the DIRECTORY of a -name that has one; empty is none")
	fs.DurationVar(&s.poll, "poll", 30*time.Second, "`time` between two questions to the registry")
	fs.BoolVar(&s.once, "once", false, "end when nothing is left to do, for cron")
	fs.BoolVar(&s.retry, "retry", false, "with -once: end a hold, and try again what has failed here before, as HUP does")
	fs.BoolVar(&s.repair, "repair", false, "with -once: deploy what is live once more, into a fresh root, as when somebody has modified it")
	fs.BoolVar(&s.dryRun, "dry-run", false, "fetch, unpack and check what is new, but do not switch")
	fs.StringVar(&s.script, "script", "./deploy.sh", "`program` that makes a root live; empty is none: switching the link is enough")
	fs.StringVar(&s.checkScript, "check-script", "", "`program` that looks at a root before the switch; exit status 75 means not now; empty is none")
	fs.StringVar(&s.removeScript, "remove-script", "", "`program` that takes a first deployment off the host when it fails; empty is none")
	fs.StringVar(&s.notify, "notify", "", "`program` that tells a person when something is wrong here, and when it is over; it has a minute, and nothing waits for it; empty is none")
	fs.DurationVar(&s.hookTimeout, "hook-timeout", 10*time.Minute, "`time` that a program may take")
	fs.StringVar(&s.hookUser, "hook-user", "", "`user[:group]` that the programs run as, with nothing that this user has not; needs root; empty is none")
	fs.StringArrayVar(&s.checks, "verify", nil, "`check` after a deployment, such as type=tls,addr=localhost:443,cert=etc/site.pem; may be repeated, one a line in the variable")
	fs.IntVar(&s.successes, "successes", spec.DefaultSuccesses, "`number` of times in a row that every check has to pass")
	fs.DurationVar(&s.total, "verify-total", spec.DefaultTotal, "`time` that the checks have until they pass")
	fs.DurationVar(&s.soak, "soak", 0, "`time` that the checks go on after that, before the deployment counts")
	fs.StringVar(&s.baseline, "baseline", baselineEnvironment, "what a check is worth that failed on the old root already: `policy` environment commits as unverified, strict rolls back")
	fs.StringVar(&s.verifySource, "verify-source", sourceAll, "whose checks count: `source` all is those of these flags, of the revision at the registry and of .deploy/verify in the root; host is those of these flags only")
	fs.BoolVar(&s.allowExec, "allow-exec-checks", false, "let exec and process checks come from the registry and the root too: whoever writes these then runs programs here")
	fs.DurationVar(&s.verifyEvery, "verify-every", 0, "`time` between two looks at what is live, such as 5m: what fails is told, and nothing goes back by itself; 0 is no look")
	fs.DurationVar(&s.warnExpiry, "warn-expiry", 21*24*time.Hour, "`time` that a certificate that a check sees should still be valid: less is told, once a day by -notify; 0 is whatever")
	fs.DurationVar(&s.checkEvery, "check-every", 24*time.Hour, "`time` between two comparisons of what is live with what was unpacked, every byte, slowly and in the background: what is modified is told; 0 is none")
	fs.StringArrayVar(&s.windows, "window", nil, "`time` of the week in which new deployments start, such as \"Mon-Fri 22:00-04:00\" or \"Sat,Sun 00:00-24:00 Europe/Berlin\"; may be repeated, one a line in the variable. A rollback never waits for it, nor does what a person asks for, nor a revision with the content of a root that is kept here; once that is collected it is new")
	s.publishFlags(fs)
	fs.IntVar(&s.keep, "keep", 3, "`number` of earlier roots to keep")
	fs.IntVar(&s.evidence, "keep-evidence", 20, "`number` of deployments whose evidence to keep; that of what serves stays in any case")
	fs.BoolVar(&s.cleanOld, "cleanold", false, "keep only the root to fall back on: -keep 1")
	fs.StringVar(&s.maxBytes, "max-bytes", "", "`amount` of disk space for roots and layers, such as 20GiB: beyond it layers, and roots before the one to fall back on, go early; empty is no limit")
	fs.StringVar(&s.minFree, "min-free", "", "`amount` of disk space to leave free in the same way, such as 2GiB or 10%; empty is none")
	fs.BoolVar(&s.layers.Owner, "owner", false, "give files the owner and group of the archive; needs root")
	fs.StringSliceVar(&s.links, "link", nil, "`component` whose files nobody ever writes to, on this host: roots share those that have not changed by hard links; may be repeated, or be several with commas")
	layerflags.Define(fs, &s.layers)
	fs.StringVar(&s.http, "http", "", "`address` to show health, version and metrics on, over HTTP without authorization: localhost:port or the path of a socket; empty is nowhere")
	fs.StringVar(&s.metricsFile, "metrics-file", "", "`file` to write the metrics to, for node_exporter's textfile collector: its name should end with .prom; empty is none")
	fs.StringVar(&s.logFormat, "log-format", cli.LogText, "`format` of the log: text or json")
	fs.BoolVarP(&s.verbose, "verbose", "v", false, "log more")
	for _, name := range []string{"known-hosts", "key", "dir", "settings", "state", "script", "check-script", "remove-script", "notify", "metrics-file"} {
		cli.FileFlag(fs, name)
	}
	for _, name := range []string{"state", "script", "check-script", "remove-script", "notify", "hook-user", "max-bytes", "min-free", "http", "metrics-file"} {
		cli.EmptyFlag(fs, name)
	}
	cli.EnvAlias(fs, "fp", "DEPLOY_AGENT_FINGERPRINT")
}

// The values of -baseline.
const (
	baselineEnvironment = "environment"
	baselineStrict      = "strict"
)

// The values of -verify-source.
const (
	sourceAll  = "all"
	sourceHost = "host"
)

// options turns the flags into what the machine takes.
func (s *settings) options() (agent.Options, error) {
	o := agent.Options{
		Name: s.name, Dir: s.dir, StateFile: s.stateFile,
		Poll:   agent.Poll{Interval: s.poll},
		Hook:   agent.Hook{Script: s.script, CheckScript: s.checkScript, RemoveScript: s.removeScript, Timeout: s.hookTimeout, NotifyScript: s.notify},
		Layers: s.layers, Link: s.links,
		Mode: agent.Mode{Once: s.once, DryRun: s.dryRun, Retry: s.retry, Repair: s.repair},
	}
	switch {
	case s.retry && !s.once:
		return o, cli.Usage("-retry should come with -once; for an agent that runs, send it HUP")
	case s.repair && !s.once:
		return o, cli.Usage("-repair should come with -once")
	case s.poll == 0:
		return o, cli.Usage("-poll should not be 0")
	case s.hookTimeout <= 0:
		return o, cli.Usage("-hook-timeout should be positive")
	case s.baseline != baselineEnvironment && s.baseline != baselineStrict:
		return o, cli.Usage("-baseline %q: should be %s or %s", s.baseline, baselineEnvironment, baselineStrict)
	}
	if err := s.checksOptions(&o.Checks); err != nil {
		return o, err
	}
	if s.poll < 0 { // as in the original tool set
		o.Poll.Interval = 15 * time.Second
	}
	if s.hookUser != "" {
		if os.Geteuid() != 0 {
			return o, cli.Usage("-hook-user needs an agent that runs as root")
		}
		user, err := agent.LookupUser(s.hookUser)
		if err != nil {
			return o, cli.Usage("-hook-user: %w", err)
		}
		o.Hook.User = user
	}
	for _, name := range s.links {
		if err := wire.CheckName(name); err != nil {
			return o, cli.Usage("-link %q: %w", name, err)
		}
	}
	var err error
	if o.Keep, err = s.retention(); err != nil {
		return o, err
	}
	if s.baseline == baselineStrict {
		o.Baseline = agent.BaselineStrict
	}
	for _, text := range splitLines(s.windows) {
		w, err := agent.ParseWindow(text)
		if err != nil {
			return o, cli.Usage("-window %q: %w", text, err)
		}
		o.Window = append(o.Window, w)
	}
	if o.Publish, err = s.published(); err != nil {
		return o, err
	}
	o.Verify = spec.Spec{Successes: s.successes, Total: s.total, Soak: s.soak}
	for _, text := range splitLines(s.checks) {
		c, err := spec.Parse(text, spec.FromHost)
		if err != nil {
			return o, cli.Usage("-verify %q: %w", text, err)
		}
		o.Verify.Checks = append(o.Verify.Checks, c)
	}
	if len(o.Verify.Checks) == 0 && s.soak > 0 && o.Checks.HostOnly {
		return o, cli.Usage("-soak needs something to look at: give -verify")
	}
	if err := o.Verify.Validate(spec.FromHost); err != nil {
		return o, cli.Usage("-verify: %w", err)
	}
	return o, nil
}

// leastVerifyEvery keeps a slip of the keyboard from looking all the time.
const leastVerifyEvery = time.Second

// checksOptions turns the flags about checks besides -verify into what the machine takes.
func (s *settings) checksOptions(c *agent.Checks) error {
	switch {
	case s.verifySource != sourceAll && s.verifySource != sourceHost:
		return cli.Usage("-verify-source %q: should be %s or %s", s.verifySource, sourceAll, sourceHost)
	case s.verifySource == sourceHost && s.allowExec:
		return cli.Usage("-allow-exec-checks says nothing with -verify-source host")
	case s.verifyEvery != 0 && s.verifyEvery < leastVerifyEvery:
		return cli.Usage("-verify-every should be at least %v, or 0", leastVerifyEvery)
	case s.warnExpiry < 0 || s.checkEvery < 0:
		return cli.Usage("-warn-expiry and -check-every should not be negative")
	}
	*c = agent.Checks{HostOnly: s.verifySource == sourceHost, AllowExec: s.allowExec, Every: s.verifyEvery, WarnExpiry: s.warnExpiry, Inspect: s.checkEvery}
	return nil
}

// retention turns the flags about what stays into what the machine takes.
func (s *settings) retention() (agent.Keep, error) {
	k := agent.Keep{Roots: s.keep, Evidence: s.evidence}
	switch {
	case s.keep < 1:
		return k, cli.Usage("-keep should be at least 1: the root to fall back on")
	case s.evidence < 1:
		return k, cli.Usage("-keep-evidence should be at least 1")
	}
	if s.cleanOld {
		k.Roots = 1
	}
	most, err := agent.ParseRoom(s.maxBytes)
	if err == nil && most.Percent > 0 {
		err = errors.New("should be bytes, such as 20GiB")
	}
	if err != nil {
		return k, cli.Usage("-max-bytes %q: %w", s.maxBytes, err)
	}
	if k.MinFree, err = agent.ParseRoom(s.minFree); err != nil {
		return k, cli.Usage("-min-free %q: %w", s.minFree, err)
	}
	k.MaxBytes = most.Bytes
	return k, nil
}
