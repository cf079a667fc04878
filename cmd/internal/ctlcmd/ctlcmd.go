// Package ctlcmd is the program deployctl: its commands, and what connects
// them to the packages that do the work.
//
// Every command of the registry's console is a command of deployctl, and words
// that name none are sent to the registry all the same, since it may be newer,
// unless they look like a slip of the keyboard. Words
// are quoted for the way and never parsed here, but for those of addver -file.
package ctlcmd

import (
	"context"
	"slices"
	"strings"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// Defaults are settings that were given when the program was built; empty ones
// were not.
type Defaults struct {
	Address     string
	Fingerprint string // one, or several with commas between
}

// Main runs deployctl with the words after its name and returns its exit
// status.
func (d Defaults) Main(ctx context.Context, args []string, o *cli.IO) int {
	return d.program().Main(ctx, args, o)
}

// Main is Defaults.Main without defaults.
func Main(ctx context.Context, args []string, o *cli.IO) int { return Defaults{}.Main(ctx, args, o) }

// Program returns deployctl, for documents.
func Program() *cli.Program { return Defaults{}.program() }

func (d Defaults) program() *cli.Program {
	r := &remote{}
	return &cli.Program{
		Name:  "deployctl",
		Short: "deploy from the command line",
		Long: `Commands are those of the registry's console, which "ssh registry help" lists
too; addver takes a file besides, and uploads it.

The registry is known by its fingerprint (-fp) or by known_hosts, as ssh does.
Keys are those of the SSH agent and ~/.ssh/id_ed25519, id_ecdsa and id_rsa, or
the one of -key alone.`,
		Examples: []string{
			"deployctl -addr registry.example:2022 addver -name code -version v02 -file code.tar.gz",
			"deployctl bumpconf -name project1 -component code",
			"deployctl batch <commands.txt",
		},
		Statuses: transportStatuses,
		Flags:    d.flags(r),
		Commands: commands(r),
		Suggest: func(ctx context.Context, o *cli.IO, words []string, word string) []string {
			if len(words) > 1 && words[0] == "bundle" && strings.TrimLeft(words[len(words)-1], "-") == "name" ||
				len(words) > 1 && words[0] == "probe" && strings.TrimLeft(words[len(words)-1], "-") == "from" {
				words = []string{"showconf", "-name"}
			}
			return r.suggest(ctx, o, words, word)
		},
		Run: func(ctx context.Context, o *cli.IO, args []string) error {
			if near := console.Nearest(args[0], names(r)); near != "" {
				return cli.WithHint(cli.Usage("unknown command %q, the nearest is %s", args[0], near),
					"run 'deployctl -h'; if a newer registry has this command, give it by ssh")
			}
			return r.run(ctx, o, args, stdinOf(o))
		},
	}
}

// transportStatuses are those that come with a registry at the other end.
var transportStatuses = []wire.Status{wire.NotFound, wire.Conflict, wire.Denied, wire.Unreachable, wire.Untrusted}

// local are the commands that run here, without a registry.
var local = []cli.Command{lintCommand, packCommand, unpackCommand}

// commands returns the local commands and those of the console. The console's
// help and version are the program's own, and there is nothing to exit.
func commands(r *remote) []cli.Command {
	out := append(slices.Clone(local), probeCommand(r), bundleCommand(r))
	for _, c := range console.Commands() {
		switch c.Name {
		case "help", "version", "exit":
			continue
		case "addver":
			out = append(out, addverCommand(r, c))
			continue
		}
		command := fromConsole(c)
		command.New = func() cli.Op { return &remoteOp{r, c} }
		out = append(out, command)
	}
	return out
}

// names returns the names of the commands, for whoever has mistyped one.
func names(r *remote) []string {
	out := []string{"help", "version", "completion"}
	for _, c := range commands(r) {
		out = append(out, c.Name)
	}
	return out
}

// fromConsole returns everything of a command but what it does.
func fromConsole(c console.Command) cli.Command {
	command := cli.Command{
		Name: c.Name, Args: c.Args, Short: c.Short, Long: c.Long, Raw: true,
		Statuses: append([]wire.Status{wire.Denied, wire.Unreachable, wire.Untrusted}, c.Statuses...),
	}
	for _, e := range c.Examples {
		command.Examples = append(command.Examples, "deployctl "+strings.TrimPrefix(e, "deployctl "))
	}
	return command
}
