// Deployctl is the operator's program: see `deployctl help`.
package main

import (
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ctlcmd"
)

func main() { cli.Exit(ctlcmd.Main) }
