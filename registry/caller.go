package registry

import (
	"fmt"
	"strings"
)

// Role is what a caller may do; a greater one may do all that a smaller may.
type Role int

// The roles. Agent is none of the others: it reads what it deploys, by SFTP
// and by poll, and runs no commands.
const (
	Agent     Role = -1
	NoRole    Role = 0 // may do nothing
	Viewer    Role = 1
	Publisher Role = 2
	Operator  Role = 3
	Admin     Role = 4
)

var roleNames = map[Role]string{Agent: "agent", Viewer: "viewer", Publisher: "publisher", Operator: "operator", Admin: "admin"}

// String returns the name of the role, as authorized_keys options have it.
func (r Role) String() string {
	if s, ok := roleNames[r]; ok {
		return s
	}
	return fmt.Sprintf("role(%d)", int(r))
}

// Caller is who asks: what the key that authenticated a session stands for.
// Nothing in it comes from what a client merely claims, but User.
type Caller struct {
	User        string // as the client named itself; for the record only
	Role        Role
	Fingerprint string // of the key, as ssh-keygen -l prints it: SHA256:...
	Comment     string // of the key's line in authorized_keys
	Remote      string // address, without the port
}

// String names the caller for the record: the key's comment, else the user.
func (c Caller) String() string {
	if c.Comment != "" {
		return c.Comment
	}
	return c.User
}

// nameOf returns the last part of a key of Meta.
func nameOf(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }
