// Package ctlcmd is the program deployctl: its commands, and what connects
// them to the packages that do the work.
package ctlcmd

import (
	"context"

	"deploytools/cmd/internal/cli"
)

// Main runs deployctl with the words after its name and returns its exit
// status.
func Main(ctx context.Context, args []string, o *cli.IO) int {
	return Program().Main(ctx, args, o)
}

// Program returns deployctl, for one call of Main and for documents.
func Program() *cli.Program {
	return &cli.Program{
		Name:     "deployctl",
		Short:    "deploy from the command line",
		Commands: commands,
	}
}

// commands are those that run here, without a registry.
var commands = []cli.Command{}
