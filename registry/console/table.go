package console

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"slices"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// sumHelp is of hidden commands, which programs run.
const sumHelp = `Programs that copy files, such as rclone, run it to see that a file arrived as it left. Each PATH
names a complete upload of your key, as sftp shows it. Without one, standard input is read.`

// everyCommand returns the command table.
func everyCommand() []Command {
	return slices.Concat(layerCommands(), fleetCommands(), upkeepCommands(), sessionCommands())
}

// layerCommands are the commands about layers and configurations.
func layerCommands() []Command {
	return []Command{
		{
			Name: "help", Short: "list the commands, or explain one", Args: "[COMMAND]", Role: registry.Viewer, Reach: NoConfiguration,
			Examples: []string{"help", "help addver"},
			New:      func() Op { return new(helpOp) },
		},
		{
			Name: "components", Short: "list the components", Role: registry.Viewer, Reach: NoConfiguration,
			Examples: []string{"components", "components -json"},
			New:      func() Op { return new(componentsOp) },
		},
		{
			Name: "showcomp", Short: "list the versions of a component, the oldest first", Args: "[NAME]", Role: registry.Viewer, Reach: NoConfiguration,
			Examples: []string{"showcomp -name code", "showcomp -v code"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(showcompOp) },
		},
		{
			Name: "configurations", Short: "list the configurations", Role: registry.Viewer, Reach: OwnConfigurations,
			Examples: []string{"configurations"},
			New:      func() Op { return new(configurationsOp) },
		},
		{
			Name: "showconf", Short: "show the layers of a configuration", Args: "[NAME]", Role: registry.Viewer, Reach: OwnConfigurations,
			Examples: []string{"showconf -name project1", "showconf project1", "showconf -name project1 -v", "showconf -name project1 -digests"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(showconfOp) },
		},
		{
			Name: "history", Short: "list the revisions of a configuration, the newest first", Args: "[NAME]", Role: registry.Viewer, Reach: OwnConfigurations,
			Examples: []string{"history -name project1", "history project1"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(historyOp) },
		},
		{
			Name: "diffconf", Short: "show in which layers two revisions of a configuration differ", Args: "[NAME]", Role: registry.Viewer, Reach: OwnConfigurations,
			Long: `One line for each layer that differs: the component, then "added", "removed", "changed",
or "content" where the version was deleted and added again with other content. Then one for
each check that was added or removed.`,
			Examples: []string{"diffconf -name project1", "diffconf -name project1 -from 1 -to 2"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(diffconfOp) },
		},
		{
			Name: "diff", Short: "show in which files two versions, or two revisions of a configuration, differ",
			Args: "[COMPONENT:VERSION COMPONENT:VERSION]", Role: registry.Viewer, Reach: OwnConfigurations, Rows: true,
			Long: `One line for each file, directory or symlink that differs: the component, then "added",
"removed" or "changed", the path, and what of it changed: type, mode, owner, size, content
(as the first digits of its digest) or target.

Revisions are compared layer by layer, where diffconf names a difference; a file that a later layer
replaces shows all the same. Paths are written as in a manifest: one word, with %XX for
spaces, control characters and what is not ASCII.`,
			Examples: []string{"diff code:v00 code:v01", "diff -name project1 -from 1 -to 2"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(diffOp) },
		},
		{
			Name: "files", Short: "list what a version holds", Args: "[COMPONENT:VERSION]", Role: registry.Viewer, Reach: OwnConfigurations, Rows: true,
			Long: `One line for each file, directory and symlink, by path: type, mode, owner, size and path.
Paths are written as in a manifest: one word, with %XX for spaces, control characters and
what is not ASCII.`,
			Examples: []string{"files code:v01", "files -name code -version v01 -v"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(filesOp) },
		},
		{
			Name: "uploads", Short: "list what was uploaded and is no version yet", Role: registry.Viewer, Reach: NoConfiguration,
			Long: `An upload is kept for 24 hours after its last byte. Its digest is the first column; addver -hash
makes it a version. The second is its size in bytes, so far where it is receiving, and as much as
can go on where it is partial: it was cut off. The last one says why an archive is refused.
Where it is waiting, its check waits for memory that other checks have, and goes on by itself.`,
			Examples: []string{"uploads"},
			New:      func() Op { return new(uploadsOp) },
		},
		{
			Name: "sha256sum", Short: "print the SHA-256 of what you have uploaded", Args: "[PATH...]", Role: registry.Publisher, Reach: NoConfiguration, Stdin: true, Hidden: true,
			Long:     sumHelp,
			Examples: []string{"sha256sum /upload"}, Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New: func() Op { return &sumOp{hash: sha256.New} },
		},
		{
			Name: "sha1sum", Short: "print the SHA-1 of what you have uploaded", Args: "[PATH...]", Role: registry.Publisher, Reach: NoConfiguration, Stdin: true, Hidden: true,
			Long:     sumHelp,
			Examples: []string{"sha1sum /upload"}, Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New: func() Op { return &sumOp{hash: sha1.New} },
		},
		{
			Name: "md5sum", Short: "print the MD5 of what you have uploaded", Args: "[PATH...]", Role: registry.Publisher, Reach: NoConfiguration, Stdin: true, Hidden: true,
			Long:     sumHelp,
			Examples: []string{"md5sum /upload"}, Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New: func() Op { return &sumOp{hash: md5.New} },
		},
		{
			Name: "addver", Short: "make an upload a version of a component", Role: registry.Publisher, Reach: NoConfiguration, Mutates: true,
			Long: `The content must have been uploaded, by sftp, scp or deployctl, or be the content
of some other version. Adding the same content under the same name again changes
nothing and succeeds; other content is refused, because versions never change.

deployctl addver -file FILE uploads and adds in one step.`,
			Examples: []string{
				"addver -name code -version v02 -hash e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
				"addver -name code -version v03 -hash e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 -meta commit=1f3a9c7 -meta ci=812 -note 'logins work again'",
			},
			Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New:      func() Op { return new(addverOp) },
		},
		{
			Name: "addconf", Short: "make a configuration of layers", Args: "[NAME COMPONENT:VERSION...]",
			Role: registry.Operator, Reach: OwnConfigurations, Mutates: true,
			Long: `Layers are stacked in the order given: where two hold the same path, the later one wins.
A layer is COMPONENT:VERSION, or COMPONENT@sha256:DIGEST for the newest version of this content.

The words behind the flags are the name, unless -name is given, and layers.

Checks given with -verify travel with the revision to every host, and come back with a rollback.`,
			Examples: []string{
				"addconf -name project2 -layer code:v01 -layer config:v01",
				"addconf -name project2 -replace -layer code:v02 -layer config:v01",
				"addconf project3 code:v02 config:v01",
				"addconf -name project4 -layer code:v01 -verify type=tls,addr=localhost:443,sni=www.example.org,cert=etc/site.pem -soak 30s",
			},
			Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New:      func() Op { return new(addconfOp) },
		},
		{
			Name: "changeconf", Short: "give layers of a configuration other versions, or give it other checks", Args: "[NAME COMPONENT:VERSION...]",
			Role: registry.Operator, Reach: OwnConfigurations, Mutates: true,
			Long: `All layers and checks change in one revision. The command that takes it back is printed.

The words behind the flags are the name, unless -name is given, and layers.

A revision with other checks and the same layers is not deployed anew: the hosts look at what is live with
the checks that it has now.`,
			Examples: []string{
				"changeconf -name project1 -component code -version v02",
				"changeconf -name project1 -layer code:v01 -layer config:v02",
				"changeconf -name project1 -component code -version v00 -expect 5 -note 'v01 loses sessions'",
				"changeconf project1 code:v01 config:v01",
				"changeconf -name project1 -verify type=http,url=https://localhost/version,insecure=true,json=/id,equals={newid} -successes 3",
				"changeconf -name project1 -verify ''",
			},
			Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New:      func() Op { return new(changeconfOp) },
		},
		{
			Name: "bumpconf", Short: "give layers of a configuration their newest versions", Args: "[NAME COMPONENT...]",
			Role: registry.Operator, Reach: OwnConfigurations, Mutates: true,
			Long: `The newest version is the one that was added last, whatever its name. The command that takes it back is printed.

The words behind the flags are the name, unless -name is given, and components.`,
			Examples: []string{"bumpconf -name project1 -component code", "bumpconf project1 config"}, Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New: func() Op { return new(bumpconfOp) },
		},
		{
			Name: "rollback", Short: "give a configuration the layers of an earlier revision", Args: "[NAME]",
			Role: registry.Operator, Reach: OwnConfigurations, Mutates: true,
			Long: `Makes a new revision; nothing is lost, and rolling back twice is going forward again. It also brings a deleted configuration back.

Where agents have told that what it goes back to failed on their hosts, the hosts and the reasons are named, and
nothing is refused: it is a new revision, which these hosts try once more. So do the other commands that give a
configuration other layers.`,
			Examples: []string{"rollback -name project1", "rollback project1", "rollback -name project1 -to 1"},
			Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New:      func() Op { return new(rollbackOp) },
		},
		{
			Name: "hold", Short: "let the agents of a configuration start nothing new", Args: "[NAME]",
			Role: registry.Operator, Reach: OwnConfigurations, Mutates: true,
			Long: `What agents have begun goes on, and so do rollbacks on hosts; the configuration can be
changed meanwhile. Agents log the reason and show it in their status. An agent that does
not know holds, one of before, deploys all the same.

-until takes a time in UTC, such as "2026-01-31 18:30", one with a zone, as in
2026-01-31T18:30:00+01:00, or a duration: 90m, 2d. Another hold takes the place of the first.`,
			Examples: []string{
				"hold project1 -reason 'database migration' -until 2h",
				"hold -name project1 -reason 'sale, ask ann' -until 2099-11-30",
			},
			Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New:      func() Op { return new(holdOp) },
		},
		{
			Name: "resume", Short: "end the hold of a configuration", Args: "[NAME]", Role: registry.Operator, Reach: OwnConfigurations, Mutates: true,
			Examples: []string{"resume project1"}, Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New: func() Op { return new(resumeOp) },
		},
		{
			Name: "delver", Short: "delete a version that no configuration uses", Role: registry.Admin, Mutates: true,
			Long: `A version that one of the newest 10 revisions of a configuration has is kept, so that
rollback works; -force deletes it all the same, and -note says why.`,
			Examples: []string{"delver -name config -version v02 -force -note 'holds a password'"}, Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New: func() Op { return new(delverOp) },
		},
		{
			Name: "delcomp", Short: "delete a component that no configuration uses", Args: "[NAME]", Role: registry.Admin, Mutates: true,
			Examples: []string{"delcomp -name assets -force"}, Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New: func() Op { return new(delcompOp) },
		},
		{
			Name: "delconf", Short: "delete a configuration", Args: "[NAME]", Role: registry.Admin, Reach: OwnConfigurations, Mutates: true,
			Long:     "Hosts keep what they run. History stays: rollback brings the configuration back.",
			Examples: []string{"delconf -name project1 -force"}, Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New: func() Op { return new(delconfOp) },
		},
	}
}

// sessionCommands are the commands about the console itself.
func sessionCommands() []Command {
	return []Command{
		{
			Name: "audit", Short: "list who changed what, and what was refused", Role: registry.Admin, Rows: true,
			Long: `One line for each command and upload that changed something, and for each that was refused to
a key or failed, the oldest first: number, time, user, fingerprint of the key, address,
the command, and what came of it. Of one key about 60 entries a minute are kept that changed
nothing, refused or not, and 1 KiB of the words of what was refused; the daemon's log has them
all. Dry runs are no changes.

Times are in UTC: 2026-01-31, "2026-01-31 18:30", 2026-01-31T18:30:00Z; or how long
ago: 90m, 2d.

Each entry holds the hash of the one before. -verify names the first entry that is not
as it was written. Whoever can write to the database could write all of it anew: keep
what -verify prints elsewhere, and give it to -seen later.`,
			Examples: []string{"audit -n 3", "audit -since 2h -command changeconf", "audit -user ann@desk -name project1 -n 2", "audit -verify"},
			Statuses: []wire.Status{wire.NotFound},
			New:      func() Op { return new(auditOp) },
		},
		{
			Name: "stats", Short: "show what the registry holds and has done since its start", Role: registry.Viewer,
			Examples: []string{"stats"},
			New:      func() Op { return new(statsOp) },
		},
		{
			Name: "sessions", Short: "list who is connected", Role: registry.Operator,
			Long: `A connection on a line: its number, the role, who it is, from where, since when, bytes
received and sent, and what it runs. Of an agent it ends with host= and, once it has polled,
instance=: the host and the agent as hosts and status show them.`,
			Examples: []string{"sessions"},
			New:      func() Op { return new(sessionsOp) },
		},
		{
			Name: "disconnect", Short: "cut a connection", Args: "ID", Role: registry.Admin, Mutates: true,
			Long: `What it runs ends as when its network fails; an upload in it is gone. Whoever it
is may connect again: to keep somebody out, take the key out of its file.`,
			Examples: []string{"disconnect 7"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(disconnectOp) },
		},
		{
			Name: "batch", Short: "run the commands on standard input, a line each", Role: registry.Viewer, Reach: NoConfiguration, Stdin: true,
			Long: `Empty lines and lines that begin with # are passed over; exit or quit ends it, and
so does the first error, unless -keep-going is given. The exit status is that of
the last command that failed. A shell without a terminal does the same: ssh registry < script

Under -json every command prints JSON, an object a line.`,
			Examples: []string{"batch -keep-going"},
			New:      func() Op { return new(batchOp) },
		},
		{
			Name: "version", Short: "show what this registry was built from", Role: registry.Viewer, Reach: NoConfiguration,
			Examples: []string{"version"},
			New:      func() Op { return new(versionOp) },
		},
		{
			Name: "exit", Short: "leave the console, or end a script; so does quit", Role: registry.Viewer, Reach: NoConfiguration,
			Examples: []string{"exit"},
			New:      func() Op { return new(exitOp) },
		},
		{
			Name: CompleteName, Short: "list what the last word may become", Args: "-- WORD...", Role: registry.Viewer, Reach: OwnConfigurations, Hidden: true,
			New: func() Op { return new(completeOp) },
		},
	}
}
