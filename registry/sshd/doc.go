// Package sshd is the registry's SSH server: who may come in, how many, for how
// long, and which front end a session gets. Operators have the console (package
// console) as a command, a script or a terminal, and SFTP; agents, who all come
// as the user deploy-agent, have SFTP and the poll and nothing else.
//
// Who somebody is follows from the key or the certificate that authenticated the
// connection, and from nothing else that a client says. What it stands for is
// looked up again by Recheck and when it expires; connections whose rights are
// no longer the same end.
//
// A Server is safe for concurrent use. Every wait has a limit: see Options.
// Nothing is written to disk but the host key of a new registry.
//
// # Example
//
//	hostKeys, err := sshd.LoadHostKeys(dir, log)
//	...
//	operators, refused, err := keys.Parse(file, text, keys.Rules{Role: registry.Admin, Key: sshd.CheckKey})
//	...
//	s, err := sshd.New(sshd.Options{Registry: r, HostKeys: hostKeys, Operators: func() *keys.Set { return operators }, Log: log})
//	...
//	err = s.Serve(ctx, listener)
package sshd
