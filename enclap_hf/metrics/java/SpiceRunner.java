package edu.anu.spice;

import java.io.BufferedOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.io.Reader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;
import org.json.simple.JSONArray;
import org.json.simple.JSONObject;
import org.json.simple.parser.JSONParser;

/**
 * Parses what has no parse yet, then runs SPICE's own scorer and prints its scores as plain JSON.
 *
 * SPICE's option -out formats its JSON with the JavaScript engine that Java lost in version 15, so on newer versions it
 * ends with a NullPointerException after all parsing is done. Here the statistics are written as they are.
 * The process also ends when its standard input closes, so it does not outlive the program that started it.
 *
 * Arguments: clips.json captions.json number-of-threads
 *   clips.json      SPICE's own input: a list of objects with image_id, test and refs
 *   captions.json   {"parsed": [[caption, tuples], ...], "unparsed": [caption, ...]}, together all of the clips
 * Output: the lines of CaptionParser, and in the end "scores JSON", or "unscored" where a caption failed
 */
public class SpiceRunner {

    private static final int FAILED = 1;
    private static final int PARENT_IS_GONE = 4; // 3 is what Java itself ends with when its memory is used up

    public static void main(String[] arguments) {
        Thread watcher = new Thread(SpiceRunner::endWithParent);
        watcher.setDaemon(true);
        watcher.start();
        // Buffered, so that a line is written at once: Java itself may write there, too.
        FileOutputStream output = new FileOutputStream(FileDescriptor.out);
        PrintStream answers = new PrintStream(new BufferedOutputStream(output, 1 << 16));
        System.setOut(System.err); // parser and scorer talk, too
        try {
            List<String> unparsed = readCaptions(arguments[1]);
            int numThreads = Integer.parseInt(arguments[2]);
            if (unparsed.isEmpty() || new CaptionParser(unparsed, numThreads, answers).parseAll(numThreads)) {
                answers.println("scores " + CaptionParser.escape(score(arguments[0], numThreads)));
            } else {
                answers.println("unscored");
            }
            answers.flush();
        } catch (Throwable problem) {
            problem.printStackTrace();
            Runtime.getRuntime().halt(FAILED);
        }
        Runtime.getRuntime().halt(0);
    }

    private static List<String> readCaptions(String path) throws Exception {
        List<String> unparsed = new ArrayList<>();
        try (Reader reader = Files.newBufferedReader(Paths.get(path), StandardCharsets.UTF_8)) {
            JSONObject captions = (JSONObject) new JSONParser().parse(reader);
            for (Object item : (JSONArray) captions.get("parsed")) {
                JSONArray pair = (JSONArray) item;
                ArrayList<ArrayList<String>> tuples = new ArrayList<>();
                for (Object words : (JSONArray) pair.get(1)) {
                    ArrayList<String> tuple = new ArrayList<>();
                    for (Object word : (JSONArray) words) {
                        tuple.add((String) word);
                    }
                    tuples.add(tuple);
                }
                LmdbTupleDB.PARSES.put((String) pair.get(0), tuples);
            }
            for (Object caption : (JSONArray) captions.get("unparsed")) {
                unparsed.add((String) caption);
            }
        }
        return unparsed;
    }

    private static String score(String path, int numThreads) throws Exception {
        SpiceArguments options = new SpiceArguments();
        options.inputPath = path;
        options.numThreads = numThreads;
        options.cache = "memory"; // LmdbTupleDB takes no notice of the name
        options.silent = true;
        SpiceScorer scorer = new SpiceScorer();
        scorer.scoreBatch(options);
        return scorer.stats.toJSONString();
    }

    private static void endWithParent() {
        try {
            while (System.in.read() >= 0) {
                continue;
            }
        } catch (java.io.IOException closed) {
            // The same as the end of the input.
        }
        Runtime.getRuntime().halt(PARENT_IS_GONE);
    }
}
