// Package sshio stands between golang.org/x/crypto/ssh and its connections, for the
// registry and its clients. That library reads and writes every packet in two parts,
// the first of 4 KiB: each part is a call of the kernel, and may wake the other side.
package sshio
