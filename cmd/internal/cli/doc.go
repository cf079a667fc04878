// Package cli is what our programs have in common on the command line: a
// Program with its commands and flags, settings from the environment, errors
// with hints, help, versions, logs and progress.
//
// A Program touches the world only through an IO, keeps no global and never
// ends the process, so that tests can run several of them in one process.
// Results go to stdout; everything else goes to stderr.
//
//	p := cli.Program{
//		Name: "deployctl", Short: "deploy from the command line",
//		Commands: []cli.Command{{Name: "lint", Args: "FILE...", New: func() cli.Op { return &lint{} }}},
//	}
//	status := p.Main(ctx, os.Args[1:], cli.OS())
package cli
