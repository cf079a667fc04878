package console

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// sumHelp is of hidden commands, which programs run.
const sumHelp = `Programs that copy files, such as rclone, run it to see that a file arrived as it left. Each PATH
names a complete upload of your key, as sftp shows it. Without one, standard input is read.`

// everyCommand returns the command table.
func everyCommand() []Command {
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
			Name: "showcomp", Short: "list the versions of a component, the oldest first", Role: registry.Viewer, Reach: NoConfiguration,
			Examples: []string{"showcomp -name code"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(showcompOp) },
		},
		{
			Name: "configurations", Short: "list the configurations", Role: registry.Viewer, Reach: OwnConfigurations,
			Examples: []string{"configurations"},
			New:      func() Op { return new(configurationsOp) },
		},
		{
			Name: "showconf", Short: "show the layers of a configuration", Role: registry.Viewer, Reach: OwnConfigurations,
			Examples: []string{"showconf -name project1", "showconf -name project1 -v"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(showconfOp) },
		},
		{
			Name: "history", Short: "list the revisions of a configuration, the newest first", Role: registry.Viewer, Reach: OwnConfigurations,
			Examples: []string{"history -name project1"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(historyOp) },
		},
		{
			Name: "diffconf", Short: "show in which layers two revisions of a configuration differ", Role: registry.Viewer, Reach: OwnConfigurations,
			Long: `One line for each layer that differs: the component, then "added", "removed", "changed",
or "content" where the version was deleted and added again with other content.`,
			Examples: []string{"diffconf -name project1", "diffconf -name project1 -from 1 -to 2"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(diffconfOp) },
		},
		{
			Name: "uploads", Short: "list what was uploaded and is no version yet", Role: registry.Viewer, Reach: NoConfiguration,
			Long: `An upload is kept for 24 hours after its last byte. Its digest is the first column; addver -hash
makes it a version. The second is its size in bytes, so far where it is receiving, and as much as
can go on where it is partial: it was cut off. The last one says why an archive is refused.`,
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
			Examples: []string{"addver -name code -version v02 -hash e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
			Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New:      func() Op { return new(addverOp) },
		},
		{
			Name: "addconf", Short: "make a configuration of layers", Args: "[NAME COMPONENT:VERSION...]",
			Role: registry.Operator, Reach: OwnConfigurations, Mutates: true,
			Long: `Layers are stacked in the order given: where two hold the same path, the later one wins.

The words behind the flags are the name, unless -name is given, and layers.`,
			Examples: []string{
				"addconf -name project2 -layer code:v01 -layer config:v01",
				"addconf -name project2 -replace -layer code:v02 -layer config:v01",
				"addconf project3 code:v02 config:v01",
			},
			Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New:      func() Op { return new(addconfOp) },
		},
		{
			Name: "changeconf", Short: "give layers of a configuration other versions", Role: registry.Operator, Reach: OwnConfigurations, Mutates: true,
			Long: "All layers change in one revision. The command that takes it back is printed.",
			Examples: []string{
				"changeconf -name project1 -component code -version v02",
				"changeconf -name project1 -layer code:v01 -layer config:v02",
			},
			Statuses: []wire.Status{wire.NotFound},
			New:      func() Op { return new(changeconfOp) },
		},
		{
			Name: "bumpconf", Short: "give layers of a configuration their newest versions", Role: registry.Operator, Reach: OwnConfigurations, Mutates: true,
			Long:     "The newest version is the one that was added last, whatever its name. The command that takes it back is printed.",
			Examples: []string{"bumpconf -name project1 -component code"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(bumpconfOp) },
		},
		{
			Name: "rollback", Short: "give a configuration the layers of an earlier revision", Role: registry.Operator, Reach: OwnConfigurations, Mutates: true,
			Long:     "Makes a new revision; nothing is lost, and rolling back twice is going forward again. It also brings a deleted configuration back.",
			Examples: []string{"rollback -name project1", "rollback -name project1 -to 1"},
			Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New:      func() Op { return new(rollbackOp) },
		},
		{
			Name: "delver", Short: "delete a version that no configuration uses", Role: registry.Admin, Mutates: true,
			Examples: []string{"delver -name code -version v00"}, Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New: func() Op { return new(delverOp) },
		},
		{
			Name: "delcomp", Short: "delete a component that no configuration uses", Role: registry.Admin, Mutates: true,
			Examples: []string{"delcomp -name assets -force"}, Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New: func() Op { return new(delcompOp) },
		},
		{
			Name: "delconf", Short: "delete a configuration", Role: registry.Admin, Reach: OwnConfigurations, Mutates: true,
			Long:     "Hosts keep what they run. History stays: rollback brings the configuration back.",
			Examples: []string{"delconf -name project1 -force"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(delconfOp) },
		},
		{
			Name: "stats", Short: "show what the registry holds and has done since its start", Role: registry.Viewer,
			Examples: []string{"stats"},
			New:      func() Op { return new(statsOp) },
		},
		{
			Name: "sessions", Short: "list who is connected", Role: registry.Operator,
			Long: `A connection on a line: its number, the role, who it is, from where, since when, bytes
received and sent, and what it runs.`,
			Examples: []string{"sessions"},
			New:      func() Op { return new(sessionsOp) },
		},
		{
			Name: "disconnect", Short: "cut a connection", Args: "ID", Role: registry.Admin,
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
