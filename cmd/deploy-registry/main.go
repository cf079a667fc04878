// deploy-registry keeps layers and configurations; see docs/cli.md.
package main

import (
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/registrycmd"
)

func main() { cli.Exit(registrycmd.Main) }
