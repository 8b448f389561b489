// A trivial HTTP server: whatever is posted, it gives the same answer, after a while if so told.
//
//   answer DELAY_MS AWAKE_MS ANSWER     prints its port; ANSWER is the whole response, with \r\n as they are
//
// For AWAKE_MS after each request it looks for the next one without sleeping: nobody has to wake it, and its
// answer is there before most clients begin to wait for it.
//
// GET /connections is answered with the number of connections that were accepted so far. It ends with its
// standard input.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 4096, REQUEST_BYTES = 256 * 1024 };

struct connection {
    char *data;
    size_t length;
};

struct due {
    int fd;
    double at;
};

static struct connection connections[CONNECTIONS];
static struct due queue[CONNECTIONS];  // a ring: the delay is one and the same, so the order is too
static size_t queue_head, queue_tail;
static const char *answer;
static size_t answer_length;
static double delay_s, awake_s, awake_until;
static unsigned long accepted;
static int poller;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void drop(int fd) {
    free(connections[fd].data);
    connections[fd] = (struct connection){0};
    close(fd);
}

static void reply(int fd, const char *data, size_t length) {
    // An answer is smaller than any socket's buffer; a client that has gone needs none.
    if (send(fd, data, length, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET) die("send");
}

// How long the request at the beginning of the data is; 0 if it isn't all there.
static size_t request_length(const char *data, size_t length) {
    const char *end = memmem(data, length, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    size_t head = (size_t)(end - data) + 4, body = 0;
    for (const char *line = data; line < end; line += 2) {
        if (strncasecmp(line, "content-length:", 15) == 0) body = strtoul(line + 15, NULL, 10);
        line = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
    }
    return head + body <= length ? head + body : 0;
}

static void receive(int fd) {
    struct connection *c = &connections[fd];
    if (c->data == NULL && (c->data = malloc(REQUEST_BYTES)) == NULL) die("malloc");
    ssize_t got = recv(fd, c->data + c->length, REQUEST_BYTES - c->length, 0);
    if (got <= 0) {
        drop(fd);
        return;
    }
    if (awake_s > 0) awake_until = now() + awake_s;
    c->length += (size_t)got;
    size_t length;
    while ((length = request_length(c->data, c->length)) > 0) {
        if (strncmp(c->data, "GET /connections ", 17) == 0) {
            char body[32], text[128];
            int n = snprintf(body, sizeof body, "%lu", accepted);
            n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", n, body);
            reply(fd, text, (size_t)n);
        } else if (delay_s == 0) {
            reply(fd, answer, answer_length);
        } else {
            queue[queue_tail++ % CONNECTIONS] = (struct due){fd, now() + delay_s};
        }
        c->length -= length;
        memmove(c->data, c->data + length, c->length);
    }
}

static int answer_what_is_due(void) {
    for (; queue_head != queue_tail; queue_head++) {
        struct due *next = &queue[queue_head % CONNECTIONS];
        double wait_s = next->at - now();
        if (wait_s > 0) return (int)(1e3 * wait_s) + 1;
        if (connections[next->fd].data != NULL) reply(next->fd, answer, answer_length);
    }
    return -1;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    delay_s = atof(argv[1]) / 1e3;
    awake_s = atof(argv[2]) / 1e3;
    answer = argv[3];
    answer_length = strlen(answer);

    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 1024) < 0) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    poller = epoll_create1(0);
    int watched[] = {STDIN_FILENO, listener};
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = watched[i]};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, watched[i], &event) < 0) die("epoll_ctl");
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    for (;;) {
        struct epoll_event events[64];
        int wait_ms = answer_what_is_due();
        if (awake_until > 0 && now() < awake_until) wait_ms = 0;
        int count = epoll_wait(poller, events, 64, wait_ms);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == STDIN_FILENO) return 0;
            if (fd != listener) {
                receive(fd);
                continue;
            }
            int client = accept4(listener, NULL, NULL, 0);
            if (client < 0) continue;
            if (client >= CONNECTIONS) {
                close(client);
                continue;
            }
            accepted++;
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            struct epoll_event event = {.events = EPOLLIN, .data.fd = client};
            if (epoll_ctl(poller, EPOLL_CTL_ADD, client, &event) < 0) die("epoll_ctl");
        }
    }
}
