// Package client speaks with a registry over SSH and SFTP: as an agent, which
// polls and fetches, and as an operator, who runs commands and uploads.
//
// A Client connects when it is first needed and then holds one connection. It
// never tries anything twice: a call that finds the connection broken fails
// with wire.ErrUnreachable, and the next call connects anew. How often to try,
// and when, is the caller's decision.
//
// Nothing that a registry sends is believed: its host key must be known, its
// replies are bounded, and every wait has a deadline or is watched. What Fetch
// writes has to be compared with its digest by the caller.
//
// A Client is safe for concurrent use. A context that ends while a call waits
// closes the connection, since only that ends a wait at once: calls beside it
// fail with wire.ErrUnreachable.
//
//	c, err := client.New(client.Options{Addr: "registry.example:2022", User: "deploy-agent", KeyFile: "key"})
//	defer c.Close()
//	state, err := c.Poll(ctx, "site")
package client
