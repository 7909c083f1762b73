#!/usr/bin/env bash
# Builds RocksDB's static library once per machine, from the very sources the librocksdb-sys crate
# brings, and leaves it where every later cargo call finds it:
#
#   ${HOOPOE_CACHE:-~/.cache/hoopoe}/rocksdb-<version>-<features>/librocksdb.a
#
# Why: cargo compiles RocksDB's 342 C++ files one by one, again for every profile and every changed
# lock file, and spends most of that time on parsing headers. Joined into a dozen files the same
# sources take a fifth of the time, and the result serves every profile and every clone.
#
# Whenever something is not as this recipe knows it (another version, other features, another
# system, a compiler error), the ordinary cargo build of the crate makes the library instead: slower,
# same place, same use.
#
#   build-rocksdb.sh              build it unless it is there
#   build-rocksdb.sh --print-dir  say where it is or would be
set -euo pipefail

# What the recipe below was written for: the crate's version, and the digests of the two files it
# repeats in bash. A new version of the crate means comparing its build.rs with this file first.
readonly RECIPE_VERSION="0.19.0+11.8.1"
readonly RECIPE_FEATURES="lz4-zstd"
readonly RECIPE_BUILD_RS="2dbb97b102a2c13f0192ee75a49d4fc0f84fa0692ac9ffc84d364a7a28b472a3"
readonly RECIPE_SOURCES="2f3c22f0d4553104a7e83f125c7ba348183c76ed30ffb6828f42cd0e65911130"

# The number of joined files, and the memory one of them needs at most (measured 1.9 GiB, gcc 12).
readonly PARTS=12
readonly PART_MEMORY_KIB=$((2000 * 1024))

readonly ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
readonly CACHE="${HOOPOE_CACHE:-$HOME/.cache/hoopoe}"

say() { printf 'RocksDB: %s\n' "$*" >&2; }

# The version of a package as Cargo.lock pins it.
locked_version() {
    awk -v name="$1" '$1 == "name" { seen = ($3 == "\"" name "\"") }
        seen && $1 == "version" { gsub(/"/, "", $3); print $3; exit }' "$ROOT/Cargo.lock"
}

# The features of the workspace's rocksdb that change native code, sorted and joined with dashes.
native_features() {
    local line
    line="$(grep -E '^rocksdb = ' "$ROOT/Cargo.toml")"
    {
        [[ "$line" == *"default-features = false"* ]] || echo default
        grep -oE '"[a-z0-9-]+"' <<<"${line#*features = [}" | tr -d '"' \
            | grep -xE 'bzip2|io-uring|jemalloc|lto|lz4|rtti|snappy|zlib|zstd' || true
    } | sort -u | paste -sd- -
}

# The folder a package's sources lie in, as cargo says.
source_dir() {
    grep -oE "\"manifest_path\":\"[^\"]*/$1[^\"/]*/Cargo.toml\"" "$work/metadata.json" \
        | head -n 1 | sed -e 's/^"manifest_path":"//' -e 's/\/Cargo.toml"$//'
}

digest() { sha256sum "$1" | cut -d' ' -f1; }

# Says why the recipe does not apply, or nothing when it does.
why_not() {
    [[ "$version" == "$RECIPE_VERSION" ]] || { echo "the crate is $version, not $RECIPE_VERSION"; return; }
    [[ "$features" == "$RECIPE_FEATURES" ]] || { echo "the features are $features"; return; }
    [[ "$(uname -s)" == Linux ]] || { echo "this is not Linux"; return; }
    case "$(uname -m)" in
        x86_64 | aarch64) ;;
        *) echo "the processor is $(uname -m)"; return ;;
    esac
    command -v g++ >/dev/null || { echo "there is no g++"; return; }
    [[ "$(digest "$source/build.rs")" == "$RECIPE_BUILD_RS" ]] || { echo "its build.rs differs"; return; }
    [[ "$(digest "$source/rocksdb_lib_sources.txt")" == "$RECIPE_SOURCES" ]] \
        || { echo "its list of sources differs"; return; }
}

# The defines and folders of librocksdb-sys's build.rs for Linux, for the features of the recipe.
# -O2 instead of the crate's -O3: a seventh less build time, no measurable difference in use.
compiler_flags() {
    flags=(
        -std=c++20 -O2 -w -fPIC -ffunction-sections -fdata-sections -include cstdint
        "-ffile-prefix-map=$source=librocksdb-sys"
        "-I$source/rocksdb/include" "-I$source/rocksdb" "-I$source"
        "-I$source/rocksdb/third-party/gtest-1.8.1/fused-src"
        -DLZ4=1 "-I$(source_dir lz4-sys)/liblz4/lib"
        -DZSTD=1 "-I$(source_dir zstd-sys)/zstd/lib"
        -DNDEBUG=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
        -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX
        -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT
        -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT
    )
    # Checksums of the log in hardware. Every server processor since about 2011 has both; a machine
    # that builds without them gets the portable code.
    if grep -qw sse4_2 /proc/cpuinfo && grep -qw pclmulqdq /proc/cpuinfo; then
        flags+=(-msse4.2 -mpclmul)
    elif [[ "$(uname -m)" == aarch64 ]] && grep -qw crc32 /proc/cpuinfo && grep -qw aes /proc/cpuinfo; then
        flags+=(-march=armv8-a+crc+aes+crypto)
    fi
}

# How many compilers may run: one per core, fewer where memory is short.
job_count() {
    local cores memory
    cores="$(nproc)"
    memory="$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)"
    local by_memory=$((memory / PART_MEMORY_KIB))
    ((by_memory >= 1)) || by_memory=1
    echo $((cores < by_memory ? cores : by_memory))
}

# Writes the joined files: part N includes the Nth stretch of the crate's list of sources.
write_parts() {
    local sources=() line
    while read -r line; do
        [[ -z "$line" || "$line" == util/build_version.cc ]] || sources+=("$line")
    done < <(tr -d '\r' <"$source/rocksdb_lib_sources.txt"; echo)
    local part from to index
    for ((part = 1; part <= PARTS; part++)); do
        from=$(((part - 1) * ${#sources[@]} / PARTS))
        to=$((part * ${#sources[@]} / PARTS))
        for ((index = from; index < to; index++)); do
            printf '#include "%s"\n' "$source/rocksdb/${sources[index]}"
        done >"$work/part$part.cc"
    done
}

# Compiles the joined files, a few at a time, and packs them. Any failure ends it with a status.
unity_build() {
    local flags=() jobs part started failed=0 running=0
    jobs="$(job_count)"
    compiler_flags
    write_parts
    say "version $version ($features), $PARTS parts, $jobs at a time; 3 to 5 minutes on 2 cores"
    g++ "${flags[@]}" -c "$source/build_version.cc" -o "$work/build_version.o" || return 1
    for ((part = 1; part <= PARTS; part++)); do
        if ((running >= jobs)); then
            wait -n || { failed=1; break; }
            running=$((running - 1))
        fi
        say "part $part of $PARTS"
        g++ "${flags[@]}" -c "$work/part$part.cc" -o "$work/part$part.o" &
        running=$((running + 1))
    done
    while ((running > 0)); do
        wait -n || failed=1
        running=$((running - 1))
    done
    ((failed == 0)) || return 1
    mkdir -p "$work/out"
    ar crs "$work/out/librocksdb.a" "$work"/part*.o "$work/build_version.o" || return 1
    echo "librocksdb-sys $version, $features, $(g++ -dumpfullversion), ${flags[*]}" >"$work/out/BUILT"
}

# The ordinary way: a package that has only rocksdb, with the workspace's versions.
cargo_build() {
    say "building it the ordinary way, by cargo: about 20 minutes on 2 cores"
    local project="$work/cargo" library
    mkdir -p "$project/src" "$work/out"
    touch "$project/src/lib.rs"
    cp "$ROOT/Cargo.lock" "$project/Cargo.lock"
    {
        printf '[package]\nname = "rocksdb-once"\nversion = "0.0.0"\nedition = "2024"\n'
        printf '\n[workspace]\n\n[dependencies]\n'
        grep -E '^rocksdb = ' "$ROOT/Cargo.toml"
    } >"$project/Cargo.toml"
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$project/target" \
        cargo build --release --manifest-path "$project/Cargo.toml" >&2
    library="$(find "$project/target" -path '*/librocksdb-sys-*/out/librocksdb.a' -print -quit)"
    [[ -n "$library" ]] || { say "cargo left no librocksdb.a"; exit 1; }
    cp "$library" "$work/out/librocksdb.a"
    echo "librocksdb-sys $version, $features, by cargo" >"$work/out/BUILT"
}

end_children() {
    local running
    running="$(jobs -p)"
    # shellcheck disable=SC2086 # one process per word
    [[ -z "$running" ]] || kill $running 2>/dev/null || true
    rm -rf "$work"
}

build() {
    local version="$1" features="$2" target="$3" host reason
    exec 9>"$CACHE/rocksdb.lock"
    if ! flock -n 9; then
        say "another build of it is running on this machine; waiting for that one"
        flock 9
    fi
    [[ ! -f "$target/librocksdb.a" ]] || { say "already built"; return; }
    rm -rf "$target" "$CACHE"/rocksdb.building.*
    work="$(mktemp -d "$CACHE/rocksdb.building.XXXXXX")"
    trap end_children EXIT
    trap 'exit 130' INT TERM

    say "reading the sources of librocksdb-sys $version"
    host="$(rustc -vV | sed -n 's/^host: //p')"
    cargo fetch --locked --target "$host" --manifest-path "$ROOT/Cargo.toml" >&2
    cargo metadata --locked --format-version 1 --filter-platform "$host" \
        --manifest-path "$ROOT/Cargo.toml" >"$work/metadata.json"
    source="$(source_dir librocksdb-sys)"
    reason="$(why_not)"
    if [[ -n "$reason" ]]; then
        say "the quick recipe does not fit: $reason"
        cargo_build
    elif ! unity_build; then
        say "the quick recipe failed"
        rm -rf "$work/out"
        cargo_build
    fi
    mv "$work/out" "$target"
    say "done after $((SECONDS / 60)) min $((SECONDS % 60)) s: $target/librocksdb.a"
}

main() {
    local version features target
    version="$(locked_version librocksdb-sys)"
    features="$(native_features)"
    [[ -n "$version" ]] || { say "Cargo.lock names no librocksdb-sys"; exit 1; }
    # The crate's version is <crate>+<RocksDB>; a plus sign is a nuisance in a path.
    target="$CACHE/rocksdb-${version#*+}-$features"
    if [[ "${1:-}" == --print-dir ]]; then
        echo "$target"
    elif [[ ! -f "$target/librocksdb.a" ]]; then
        mkdir -p "$CACHE"
        build "$version" "$features" "$target"
    fi
}

main "$@"
