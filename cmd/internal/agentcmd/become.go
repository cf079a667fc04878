package agentcmd

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"deploytools/cmd/internal/cli"
)

// become has root go on as the user whose agent works in the place, for good: what root
// wrote there that agent could not read, and the programs that it runs are not root's.
// Whoever is not root, or has an agent of root's before him, stays who he is.
func (p *place) become(o *cli.IO) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var record syscall.Stat_t // its owner: the agent writes it anew each time
	if err := syscall.Lstat(filepath.Join(p.at.dir, "journal.json"), &record); err != nil || record.Uid == 0 {
		return nil // who reads it says what is wrong
	}
	uid, gid := int(record.Uid), int(record.Gid)
	name, groups := strconv.Itoa(uid), []int{gid}
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
		all, err := u.GroupIds()
		if err != nil {
			return fmt.Errorf("cannot tell the groups of %s: %w", name, err)
		}
		for _, text := range all {
			if id, err := strconv.Atoi(text); err == nil && id != gid {
				groups = append(groups, id)
			}
		}
	}
	for _, err := range []error{syscall.Setgroups(groups), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid)} {
		if err != nil {
			return fmt.Errorf("cannot become user %s, whose agent works in %s: %w", name, p.at.dir, err)
		}
	}
	if !p.json {
		fmt.Fprintf(o.Stderr, "note: this goes on as user %s, whose agent works there\n", cli.Clean(name))
	}
	return nil
}
