package layers

import (
	"archive/tar"
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// capability is the one extended attribute that is ever applied.
const capability = "security.capability"

// attributes looks at the extended attributes of h: a file capability is a
// privilege, all others are left out, which is told once.
func (a *archive) attributes(h *tar.Header, e *entry) error {
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		name, value, ok := attribute(key, h.PAXRecords[key])
		switch {
		case !ok:
			return a.refuse("pax record %s is malformed", quote(key))
		case name == "":
		case name == capability && (!a.o.Privileged || e.kind != file):
			return a.refuse("file capability (%s)", capability)
		case name == capability && !validCapability(value):
			return a.refuse("%s is malformed", capability)
		case name == capability && e.capability != "" && e.capability != value:
			return a.refuse("two values of %s", capability)
		case name == capability:
			e.capability = value
		case a.xattrs == "":
			a.xattrs = fmt.Sprintf("layer %s: extended attributes and ACLs are not applied (entry %d %q is the first that has some)", a.layer, e.number, a.name)
		}
	}
	return nil
}

// validCapability says whether the kernel takes v: struct vfs_ns_cap_data of
// linux/capability.h, in the revisions 2 and 3.
func validCapability(v string) bool {
	known := len(v) == 20 && v[3] == 2 || len(v) == 24 && v[3] == 3
	return known && v[0]&^1 == 0 && v[1] == 0 && v[2] == 0 // bit 0: effective
}

// attribute returns the extended attribute that a pax record stands for; no
// name: none. GNU tar and star write it as it is, libarchive with the name as
// in a URL and the value in base 64.
func attribute(key, value string) (name, v string, ok bool) {
	if name, found := strings.CutPrefix(key, "SCHILY.xattr."); found {
		return name, value, true
	}
	if name, found := strings.CutPrefix(key, "LIBARCHIVE.xattr."); found {
		name, err := url.PathUnescape(name)
		b, err2 := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		return name, string(b), err == nil && err2 == nil
	}
	if strings.HasPrefix(key, "SCHILY.acl.") || strings.HasPrefix(key, "RHT.security.") {
		return key, value, true
	}
	return "", "", true
}
