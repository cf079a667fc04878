// Package sftpfs shows a registry as the file trees of its SFTP sessions.
//
// Agent's tree is read-only:
//
//	/configs/NAME.json   the newest revision of the configuration NAME
//	/files/DIGEST        the layer with this digest
//
// A caller whose scope is not everything sees the configurations in it, and the
// layers that these have or had lately.
//
// Operator's has the same two and
//
//	/by-hash/DIGEST      what can become a version: the layers, and the uploads of the key
//
// and is otherwise a drop box (registry.DropBox), in which directories can be
// made and entries renamed: whatever is put there under any other name is an
// upload. Uploads of the same key are listed until they become versions, expire
// or are removed; the content of the virtual file NAME.sha256 is what sha256sum
// prints about NAME. Where an upload lies in the registry has nothing to do with
// its name.
//
// What clients of many kinds send around an upload (modes, times, owners) is
// accepted and ignored, but a size is honoured: scp cuts the file so. An upload
// whose writer goes away before it closes the file is a part, with which the key
// can go on; one write of which has failed, it is gone.
//
// The handlers belong to one session, are safe for concurrent use, and turn
// every panic below them into a failure of the one request.
package sftpfs
