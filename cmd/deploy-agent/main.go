// deploy-agent deploys one configuration on this host; see docs/cli.md.
package main

import (
	"deploytools/cmd/internal/agentcmd"
	"deploytools/cmd/internal/cli"
)

func main() { cli.Exit(agentcmd.Main) }
