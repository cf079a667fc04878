package ctlcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/client"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// remote is the registry as the program's own flags describe it.
type remote struct {
	addr, user, key string
	fingerprints    []string
	knownHosts      []string
}

// flags returns what defines the program's own flags.
func (d Defaults) flags(r *remote) func(*pflag.FlagSet) {
	addr := d.Address
	if addr == "" {
		addr = "localhost:" + client.DefaultPort
	}
	var fingerprints []string
	if d.Fingerprint != "" {
		fingerprints = strings.Split(d.Fingerprint, ",")
	}
	return func(fs *pflag.FlagSet) {
		fs.StringVar(&r.addr, "addr", addr, "`host:port` of the registry")
		fs.StringSliceVar(&r.fingerprints, "fp", fingerprints, "`fingerprint` of the registry's host key, SHA256:..., in place of known_hosts; may be given several times")
		cli.EnvAlias(fs, "fp", "DEPLOYCTL_FINGERPRINT")
		fs.StringVar(&r.key, "key", "", "private key `file`, the only one that is used")
		cli.FileFlag(fs, "key")
		fs.StringVar(&r.user, "user", "", "user `name` at the registry; yours when not given")
		fs.StringSliceVar(&r.knownHosts, "known-hosts", nil, "`file` of known host keys, in place of ~/.ssh/known_hosts and the system's; may be given several times")
		cli.FileFlag(fs, "known-hosts")
	}
}

// options are those of a client that tells and asks nobody anything.
func (r *remote) options(o *cli.IO) client.Options {
	user := r.user
	if user == "" {
		user = o.Env("USER") // cron sets none: then the client asks the system
	}
	return client.Options{
		Addr: r.addr, User: user, Fingerprints: r.fingerprints, KnownHosts: r.knownHosts,
		KeyFile: r.key, AgentSocket: o.Env("SSH_AUTH_SOCK"), NoLanes: true,
	}
}

// dial returns the client for the registry; it connects when it is used.
func (r *remote) dial(ctx context.Context, o *cli.IO) (*client.Client, error) {
	options := r.options(o)
	options.Warn = func(text string) { fmt.Fprintln(o.Stderr, "warning:", cli.Clean(text)) }
	options.Passphrase = func(file string) ([]byte, error) { return askPassphrase(ctx, file) }
	c, err := client.New(options)
	if err != nil {
		return nil, &cli.Error{Status: wire.Usage, Err: err,
			Hint: "'deployctl -h' lists the flags and variables that say where the registry is, and how to know it"}
	}
	return c, nil
}

// run runs one command of the console, whose streams and status become ours.
func (r *remote) run(ctx context.Context, o *cli.IO, words []string, stdin io.Reader) error {
	c, err := r.dial(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	return r.ended(ordered(o, func(stdout, stderr io.Writer) (wire.Status, error) {
		return c.Exec(ctx, console.Join(words), stdin, stdout, stderr)
	}))
}

// ended turns the end of a command into an error. The command itself has told
// what went wrong.
func (r *remote) ended(status wire.Status, err error) error {
	if err != nil {
		return r.explain(err)
	}
	if status != wire.OK {
		return &cli.Error{Status: status}
	}
	return nil
}

// explain adds the exit status and the hint to an error of the client.
func (r *remote) explain(err error) error {
	hint := cli.HintOf(err)
	if hint == "" && errors.Is(err, wire.ErrUnreachable) {
		hint = "is deploy-registry running there? check -addr; " + r.sshLine("version")
	}
	for _, row := range []struct {
		kind   error
		status wire.Status
	}{
		{wire.ErrUnreachable, wire.Unreachable}, {wire.ErrUntrusted, wire.Untrusted},
		{wire.ErrDenied, wire.Denied}, {wire.ErrNotFound, wire.NotFound},
	} {
		if errors.Is(err, row.kind) {
			return &cli.Error{Status: row.status, Hint: hint, Err: err}
		}
	}
	return err
}

// sshLine returns how a command of the console is run without deployctl.
func (r *remote) sshLine(command string) string {
	host, port, err := net.SplitHostPort(r.addr)
	if err != nil { // then the address has no port
		host, port = strings.Trim(r.addr, "[]"), client.DefaultPort
	}
	return "ssh -p " + port + " " + host + " " + command
}

// stdinOf returns what a command may read: a terminal is left alone.
func stdinOf(o *cli.IO) io.Reader {
	if o.IsTerminal(o.Stdin) {
		return nil
	}
	return o.Stdin
}

// remoteOp is a command that runs at the registry.
type remoteOp struct {
	r *remote
	c console.Command
}

// Flags shows the flags of the console's command; they are parsed there.
func (r *remoteOp) Flags(fs *pflag.FlagSet) { r.c.Describe(fs) }

func (r *remoteOp) Run(ctx context.Context, o *cli.IO, words []string) error {
	var stdin io.Reader
	if r.c.Stdin {
		// Only these: a loop over lines of a file would lose them to the others.
		if stdin = stdinOf(o); stdin == nil {
			return cli.WithHint(cli.Usage("%s reads standard input, which is a terminal", r.c.Name),
				"run 'deployctl "+r.c.Name+" <FILE'")
		}
	}
	return r.r.run(ctx, o, append([]string{r.c.Name}, words...), stdin)
}
