package registry

import (
	"cmp"
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

// ParseRole returns the role of this name.
func ParseRole(name string) (Role, error) {
	for role, n := range roleNames {
		if n == name {
			return role, nil
		}
	}
	return NoRole, fmt.Errorf("role %q: should be viewer, publisher, operator, admin or agent", name)
}

// Caller is who asks: what the key that authenticated a session stands for.
// Nothing in it comes from what a client merely claims, but User.
type Caller struct {
	User        string // as the client named itself; for the record only
	Role        Role
	Configs     Scope  // the configurations that it may see and change
	Host        string // whose agent it is; "" where the key's line does not say
	Fingerprint string // of the key, as ssh-keygen -l prints it: SHA256:...
	Comment     string // of the key's line in authorized_keys, or a certificate's ID
	Label       string // what the line says to call it in place of the comment
	Authority   string // fingerprint of what signed the certificate; "" for a mere key
	Serial      uint64 // of the certificate
	Remote      string // address, without the port
}

// String names the caller for the record: by the label of the key's line, else
// by its comment, else by the user.
func (c Caller) String() string { return cmp.Or(c.Label, c.Comment, c.User) }

// HostName is the name of the host whose agent the caller is: what the key's line
// says, else the key's fingerprint. Several hosts may have one key, and so one
// name.
func (c Caller) HostName() string { return cmp.Or(c.Host, c.Fingerprint) }

// SameRights reports whether both may do the same. How they are called, and
// where they come from, does not matter.
func (c Caller) SameRights(d Caller) bool {
	return c.Role == d.Role && c.Configs == d.Configs && c.Host == d.Host && c.Fingerprint == d.Fingerprint
}

// nameOf returns the last part of a key of Meta.
func nameOf(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }
