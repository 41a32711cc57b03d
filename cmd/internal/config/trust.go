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
	if err := l.checkFolders(path, report); err != nil {
		report(reason(err))
	}
}

// checkFolders reports who else could put another file in the place of one.
// It says so once a folder, and fails where it cannot look.
func (l *loader) checkFolders(path string, report func(text string)) error {
	folders, err := foldersOf(path)
	for _, folder := range folders {
		info, err := os.Stat(folder)
		if err != nil {
			return err
		}
		id := identify(info)
		if l.folders[id] {
			continue
		}
		l.folders[id] = true
		if complaint := ownership.DirectoryComplaint(info); complaint != "" {
			report("the folder " + printable(folder) + ": " + complaint)
		}
	}
	return err
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
