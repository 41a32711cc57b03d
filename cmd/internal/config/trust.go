package config

import (
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ikepulse/ikepulse/cmd/internal/ownership"
)

// checkOwnership reports who else could change a file that was read, and so
// open a tunnel to himself or to anywhere.
func (l *loader) checkOwnership(path string, info fs.FileInfo, report func(text string)) {
	if complaint := ownership.Complaint(info); complaint != "" {
		report(complaint)
	}
	l.checkFolders(path, report)
}

// checkFolders reports who else could put another file in the place of one
// that was read. It says so once a folder.
func (l *loader) checkFolders(path string, report func(text string)) {
	folders, err := foldersOf(path)
	if err != nil {
		report(reason(err))
		return
	}
	for _, folder := range folders {
		if complaint := l.complaintOfFolder(folder); complaint != "" {
			report("the folder " + printable(folder) + ": " + complaint)
		}
	}
}

// foldersOf are the folder that a file is named in and, behind a symbolic link,
// the one that it stands in.
func foldersOf(path string) ([]string, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	return []string{filepath.Dir(path), filepath.Dir(target)}, nil
}

// complaintOfFolder is "" for a folder that was looked at before.
func (l *loader) complaintOfFolder(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return reason(err)
	}
	id := identify(info)
	if l.folders[id] {
		return ""
	}
	l.folders[id] = true
	return ownership.DirectoryComplaint(info)
}
