// What may be denied, each by one word; says "WORD ok" or "WORD ERRNO" and exits with 0 or 1. Static, so that a profile need know no library.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define IS(word) (!strcmp(v[0], word))

static int opened(const char *path, int flags) { return open(path, flags, 0600) < 0 ? -1 : 0; }

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0;
}

static int mapped(const char *path)
{
	int fd = open(path, O_RDONLY);
	return fd < 0 || mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0;
}

static int locked(const char *path)
{
	int fd = open(path, O_RDONLY);
	return fd < 0 ? -1 : flock(fd, LOCK_SH);
}

static int bound(int port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	return fd < 0 ? -1 : bind(fd, (void *)&to, sizeof to);
}

static int child_killed(int signo)
{
	int status, end[2], failed;
	pid_t pid;
	if (pipe(end))
		return -1;
	pid = fork();
	if (!pid) {
		char byte;
		close(end[1]);
		_exit(read(end[0], &byte, 1) > 0);  // ends by itself when the parent does
	}
	close(end[0]);
	failed = kill(pid, signo) ? errno : 0;
	close(end[1]);
	waitpid(pid, &status, 0);
	errno = failed;
	return failed ? -1 : 0;
}

static int pivoted(char *root)
{
	char old[256];
	snprintf(old, sizeof old, "%s/old", root);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("tmpfs", root, "tmpfs", 0, NULL) || mkdir(old, 0700))
		return -1;
	return syscall(SYS_pivot_root, root, old);
}

static int done(int n, char **v)
{
	if (IS("pause")) {
		puts("ready");
		fflush(stdout);
		for (;;)
			pause();
	}
	if (IS("hold")) {  // what follows, and stays
		int failed = done(n - 1, v + 1);
		printf("%s %s\n", v[1], failed ? strerrorname_np(errno) : "ok");
		fflush(stdout);
		for (;;)
			pause();
	}
	if (IS("as")) {  // a user, and what follows
		if (setgid(atoi(v[1])) || setuid(atoi(v[1])))
			return -1;
		return done(n - 2, v + 2);
	}
	if (IS("forked")) {  // what follows, by a child: of a program's first process the label is looked at
		int status;
		pid_t pid = fork();
		if (!pid) {
			int failed = done(n - 1, v + 1);
			_exit(failed ? errno : 0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) < 0)
			return -1;
		errno = WEXITSTATUS(status);
		return errno ? -1 : 0;
	}
	if (IS("apart")) {  // in a mount namespace of its own, what follows
		if (unshare(CLONE_NEWNS))
			return -1;
		return done(n - 1, v + 1);
	}
	if (IS("read"))
		return opened(v[1], O_RDONLY);
	if (IS("write"))
		return opened(v[1], O_WRONLY);
	if (IS("readwrite"))
		return opened(v[1], O_RDWR);
	if (IS("append"))
		return opened(v[1], O_WRONLY | O_APPEND);
	if (IS("create"))
		return opened(v[1], O_WRONLY | O_CREAT | O_EXCL);
	if (IS("nameless"))
		return opened(v[1], O_RDWR | O_TMPFILE);
	if (IS("truncate"))
		return truncate(v[1], 0);
	if (IS("unlink"))
		return unlink(v[1]);
	if (IS("mkdir"))
		return mkdir(v[1], 0700);
	if (IS("symlink"))
		return symlink("x", v[1]);
	if (IS("rename"))
		return rename(v[1], v[2]);
	if (IS("link"))
		return link(v[1], v[2]);
	if (IS("chmod"))
		return chmod(v[1], 0600);
	if (IS("lock"))
		return locked(v[1]);
	if (IS("map"))
		return mapped(v[1]);
	if (IS("mknod"))
		return mknod(v[1], S_IFCHR | 0600, 0x103);
	if (IS("exec"))
		return execv(v[1], v + 1);
	if (IS("put"))
		return put(v[1], v[2]);
	if (IS("onexec"))
		return put("/proc/thread-self/attr/apparmor/exec", v[1]) ? -1 : execv(v[2], v + 2);
	if (IS("late")) {  // no_new_privs between the write and the exec
		if (put("/proc/thread-self/attr/apparmor/exec", v[1]) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
			return -1;
		return execv(v[2], v + 2);
	}
	if (IS("kill"))
		return kill(atoi(v[1]), atoi(v[2]));
	if (IS("child"))
		return child_killed(atoi(v[1]));
	if (IS("seize"))
		return ptrace(PTRACE_SEIZE, atoi(v[1]), 0, 0);
	if (IS("socket"))
		return socket(atoi(v[1]), atoi(v[2]), atoi(v[3])) < 0 ? -1 : 0;
	if (IS("bind"))
		return bound(atoi(v[1]));
	if (IS("mount"))
		return mount(*v[1] ? v[1] : NULL, v[2], *v[3] ? v[3] : NULL, strtoul(v[4], NULL, 0), NULL);
	if (IS("umount"))
		return umount2(v[1], MNT_DETACH);
	if (IS("pivot"))
		return pivoted(v[1]);
	if (IS("hostname"))
		return sethostname("x", 1);
	if (IS("chroot"))
		return chroot("/");
	errno = EINVAL;
	return -1;
}

int main(int n, char **v)
{
	int failed;
	if (n < 2)
		return 0;
	failed = done(n - 1, v + 1);
	printf("%s %s\n", v[1], failed ? strerrorname_np(errno) : "ok");
	return failed ? 1 : 0;
}
